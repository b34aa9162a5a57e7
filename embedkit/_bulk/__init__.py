"""Files in, files out: what bulk jobs read and write."""

from .._install import need

need("embedkit.bulk", "bulk", "filelock", "orjson", "pyarrow")
