"""Models measured side by side on the same texts: corpus, measures, recall, and the page that shows them."""
