/* An embedding server that is never the bottleneck: one epoll thread, replies put together from rows encoded beforehand.
 *
 * A text names its row: "@123 …" is answered with row 123 modulo the number of rows, so a client can check every vector it gets.
 * Routes: …/embeddings (OpenAI; base64 where the body says "base64", else numbers), …/api/embed (Ollama), /stats (what it did and
 * what that cost), anything else: a bare list of lists (Hugging Face). With --tls every connection is TLS; one that opens with
 * CONNECT is treated as a proxy's, so that a client with a fixed address can be sent here.
 *
 *   server --rows PREFIX [--port N] [--latency MS] [--stall-every N --stall MS] [--refuse PERCENT] [--tls CERT KEY]
 *
 * PREFIX.base64 and PREFIX.text hold one row per line. Prints "port N" once it listens.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>
#ifdef WITH_TLS
#include <openssl/err.h>
#include <openssl/ssl.h>
#endif

typedef struct { const char *at; size_t size; } Row;
typedef struct { Row *rows; size_t count; } Table;
typedef struct { char *at; size_t size, room; } Buffer;

typedef struct {
    int fd, writing, waiting, dead, secure; /* secure: 0 plain, 1 not yet known, 2 TLS */
    Buffer in, out;
    size_t sent, length; /* bytes of `out` that are gone; bytes of the whole request in `in` */
#ifdef WITH_TLS
    SSL *ssl;
#endif
} Conn;

typedef struct { int64_t due; Conn *conn; } Timer;

static Table base64_rows, text_rows;
static int64_t latency, stall; /* ns */
static unsigned long stall_every, refuse, requests, connections, texts_seen, most_waiting;
static int poller, clock_fd, tls;
static Timer *heap;
static size_t heap_size, heap_room;
#ifdef WITH_TLS
static SSL_CTX *context;
#endif

static void die(const char *what) { perror(what); exit(1); }

static void *grown(void *at, size_t size) {
    at = realloc(at, size);
    if (!at) die("realloc");
    return at;
}

static void put(Buffer *buffer, const char *from, size_t size) {
    if (buffer->size + size > buffer->room) {
        while (buffer->size + size > buffer->room) buffer->room = buffer->room ? buffer->room * 2 : 16384;
        buffer->at = grown(buffer->at, buffer->room);
    }
    memcpy(buffer->at + buffer->size, from, size);
    buffer->size += size;
}

static Table load(const char *prefix, const char *suffix) {
    char path[4096];
    struct stat about;
    Table table = {0};
    snprintf(path, sizeof path, "%s.%s", prefix, suffix);
    int fd = open(path, O_RDONLY);
    if (fd < 0 || fstat(fd, &about) < 0) die(path);
    const char *at = mmap(NULL, about.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0), *end = at + about.st_size;
    if (at == MAP_FAILED) die("mmap");
    for (const char *stop; at < end && (stop = memchr(at, '\n', end - at)); at = stop + 1) {
        table.rows = grown(table.rows, (table.count + 1) * sizeof(Row));
        table.rows[table.count++] = (Row){at, stop - at};
    }
    if (!table.count) { fprintf(stderr, "%s holds no row\n", path); exit(1); }
    return table;
}

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

/* --- timers: a binary heap, and one timerfd set to its top ------------------------------------------------------- */

static void set_clock(void) {
    struct itimerspec when = {0};
    if (heap_size) {
        int64_t due = heap[0].due > 1 ? heap[0].due : 1;
        when.it_value = (struct timespec){due / 1000000000LL, due % 1000000000LL};
    }
    timerfd_settime(clock_fd, TFD_TIMER_ABSTIME, &when, NULL);
}

static void push(int64_t due, Conn *conn) {
    if (heap_size == heap_room) heap = grown(heap, (heap_room = heap_room ? heap_room * 2 : 256) * sizeof(Timer));
    size_t at = heap_size++;
    for (; at && heap[(at - 1) / 2].due > due; at = (at - 1) / 2) heap[at] = heap[(at - 1) / 2];
    heap[at] = (Timer){due, conn};
    if (!at) set_clock();
}

static Conn *pop(void) {
    Conn *conn = heap[0].conn;
    Timer last = heap[--heap_size];
    size_t at = 0, child;
    for (; (child = 2 * at + 1) < heap_size; at = child) {
        if (child + 1 < heap_size && heap[child + 1].due < heap[child].due) child++;
        if (heap[child].due >= last.due) break;
        heap[at] = heap[child];
    }
    heap[at] = last;
    return conn;
}

/* --- a connection ------------------------------------------------------------------------------------------------- */

static void drop(Conn *conn) {
    if (conn->fd >= 0) {
#ifdef WITH_TLS
        if (conn->ssl) SSL_free(conn->ssl);
        conn->ssl = NULL;
#endif
        close(conn->fd);
        conn->fd = -1;
    }
    conn->dead = 1;
    if (conn->waiting) return; /* a timer still points here */
    free(conn->in.at);
    free(conn->out.at);
    free(conn);
}

/* Bytes moved; 0 when nothing can move now; -1 when the connection is over. */
static ssize_t receive(Conn *conn, char *into, size_t room) {
#ifdef WITH_TLS
    if (conn->secure == 2) {
        int got = SSL_read(conn->ssl, into, room);
        if (got > 0) return got;
        int why = SSL_get_error(conn->ssl, got);
        ERR_clear_error();
        return why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? 0 : -1;
    }
#endif
    ssize_t got = recv(conn->fd, into, room, 0);
    return got > 0 ? got : got < 0 && errno == EAGAIN ? 0 : -1;
}

static ssize_t transmit(Conn *conn, const char *from, size_t size) {
#ifdef WITH_TLS
    if (conn->secure == 2) {
        int gone = SSL_write(conn->ssl, from, size > 1 << 30 ? 1 << 30 : size);
        if (gone > 0) return gone;
        int why = SSL_get_error(conn->ssl, gone);
        ERR_clear_error();
        return why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? 0 : -1;
    }
#endif
    ssize_t gone = send(conn->fd, from, size, MSG_NOSIGNAL);
    return gone > 0 ? gone : gone < 0 && errno == EAGAIN ? 0 : -1;
}

static void watch(Conn *conn, int writing) {
    if (conn->writing == writing) return;
    conn->writing = writing;
    struct epoll_event event = {EPOLLIN | (writing ? EPOLLOUT : 0), {.ptr = conn}};
    epoll_ctl(poller, EPOLL_CTL_MOD, conn->fd, &event);
}

/* False when the connection is gone. */
static int flush_out(Conn *conn) {
    while (conn->sent < conn->out.size) {
        ssize_t gone = transmit(conn, conn->out.at + conn->sent, conn->out.size - conn->sent);
        if (gone < 0) { drop(conn); return 0; }
        if (!gone) { watch(conn, 1); return 1; }
        conn->sent += gone;
    }
    conn->out.size = conn->sent = 0;
    watch(conn, 0);
    return 1;
}

static void stats(Buffer *body) {
    struct rusage used;
    char text[256];
    getrusage(RUSAGE_SELF, &used);
    double cpu = (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1e3 + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e3;
    put(body, text, snprintf(text, sizeof text, "{\"requests\":%lu,\"texts\":%lu,\"connections\":%lu,\"most_waiting\":%lu,\"cpu_ms\":%.3f}",
                             requests, texts_seen, connections, most_waiting, cpu));
}

static int path_ends(const Conn *conn, const char *ending) {
    const char *path = memchr(conn->in.at, ' ', conn->in.size);
    if (!path++) return 0;
    size_t size = strcspn(path, " ?"), wanted = strlen(ending);
    return size >= wanted && !memcmp(path + size - wanted, ending, wanted);
}

static void respond(Conn *conn, const char *request, size_t size) {
    static Buffer body;
    char small[160];
    size_t count = 0;
    int openai = path_ends(conn, "/embeddings"), ollama = path_ends(conn, "/api/embed");
    body.size = 0;
    if (path_ends(conn, "/stats")) {
        stats(&body);
    } else {
        requests++;
        const Table *table = openai && memmem(request, size, "\"base64\"", 8) ? &base64_rows : &text_rows;
        if (openai) put(&body, "{\"object\":\"list\",\"data\":[", 25);
        else if (ollama) put(&body, "{\"model\":\"bench\",\"embeddings\":[", 31);
        else put(&body, "[", 1);
        for (const char *at = request, *end = request + size; (at = memchr(at, '@', end - at)); count++) {
            Row row = table->rows[strtoull(++at, NULL, 10) % table->count];
            if (count) put(&body, ",", 1);
            if (openai)
                put(&body, small, snprintf(small, sizeof small, "{\"object\":\"embedding\",\"index\":%zu,\"embedding\":", count));
            put(&body, row.at, row.size);
            if (openai) put(&body, "}", 1);
        }
        texts_seen += count;
        const char *tail = openai   ? "],\"model\":\"bench\",\"usage\":{\"prompt_tokens\":%zu,\"total_tokens\":%zu}}"
                           : ollama ? "],\"prompt_eval_count\":%zu}"
                                    : "]";
        put(&body, small, snprintf(small, sizeof small, tail, count * 8, count * 8));
    }
    put(&conn->out, small, snprintf(small, sizeof small,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n", body.size));
    put(&conn->out, body.at, body.size);
}

/* True when `in` holds a whole request; its length is then in conn->length, its body at *body. */
static int complete(Conn *conn, const char **body, size_t *size) {
    const char *head = conn->in.at, *end = memmem(head, conn->in.size, "\r\n\r\n", 4);
    if (!end) return 0;
    *size = 0;
    for (const char *line = head; line < end; line = (const char *)memmem(line, end + 2 - line, "\r\n", 2) + 2)
        if (!strncasecmp(line, "content-length:", 15)) *size = strtoull(line + 15, NULL, 10);
    *body = end + 4;
    conn->length = *body - head + *size;
    return conn->in.size >= conn->length;
}

/* As many of every hundred requests as `refuse` says are to come again after 10 ms, evenly spread. */
static int refused(Conn *conn) {
    static unsigned long seen;
    if (++seen * refuse / 100 == (seen - 1) * refuse / 100) return 0;
    const char *busy = "HTTP/1.1 500 Internal Server Error\r\nretry-after-ms: 10\r\ncontent-length: 2\r\n\r\n{}";
    put(&conn->out, busy, strlen(busy));
    return 1;
}

static void answer(Conn *conn) {
    const char *body;
    size_t size;
    if (!complete(conn, &body, &size)) return;
    if (path_ends(conn, "/stats") || !refused(conn)) respond(conn, body, size);
    memmove(conn->in.at, conn->in.at + conn->length, conn->in.size - conn->length);
    conn->in.size -= conn->length;
    flush_out(conn);
}

#ifdef WITH_TLS
/* A proxy's greeting is taken off in the clear; TLS begins behind it. False while it is still coming. */
static int greet(Conn *conn) {
    char head[4096];
    ssize_t got = recv(conn->fd, head, sizeof head - 1, MSG_PEEK);
    if (got <= 0) { if (!got || errno != EAGAIN) drop(conn); return 0; }
    if (head[0] == 'C') {
        char *end = memmem(head, got, "\r\n\r\n", 4);
        if (!end) return 0;
        recv(conn->fd, head, end + 4 - head, 0);
        const char *fine = "HTTP/1.1 200 Connection established\r\n\r\n";
        if (send(conn->fd, fine, strlen(fine), MSG_NOSIGNAL) < 0) { drop(conn); return 0; }
    }
    conn->ssl = SSL_new(context);
    SSL_set_fd(conn->ssl, conn->fd);
    SSL_set_accept_state(conn->ssl);
    conn->secure = 2;
    return head[0] != 'C';
}
#endif

static void on_readable(Conn *conn) {
    const char *body;
    size_t size;
#ifdef WITH_TLS
    if (conn->secure == 1 && !greet(conn)) return;
#endif
    for (;;) {
        static char piece[262144];
        ssize_t got = receive(conn, piece, sizeof piece);
        if (got < 0) { drop(conn); return; }
        if (!got) break;
        put(&conn->in, piece, got);
    }
    if (conn->waiting || !complete(conn, &body, &size)) return;
    int64_t wait = latency + (stall_every && (requests + 1) % stall_every == 0 ? stall : 0);
    if (!wait || path_ends(conn, "/stats")) { answer(conn); return; }
    conn->waiting = 1;
    push(now() + wait, conn);
    if (heap_size > most_waiting) most_waiting = heap_size;
}

static void on_time(void) {
    uint64_t ignored;
    if (read(clock_fd, &ignored, sizeof ignored) < 0 && errno != EAGAIN) die("timerfd");
    while (heap_size && heap[0].due <= now()) {
        Conn *conn = pop();
        conn->waiting = 0;
        if (conn->dead) drop(conn);
        else answer(conn);
    }
    set_clock();
}

static void on_knock(int listener) {
    int fd, yes = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        Conn *conn = calloc(1, sizeof *conn);
        if (!conn) die("calloc");
        conn->fd = fd;
        conn->secure = tls;
        connections++;
        struct epoll_event event = {EPOLLIN, {.ptr = conn}};
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
    }
}

static void use_tls(const char *cert, const char *key) {
#ifdef WITH_TLS
    context = SSL_CTX_new(TLS_server_method());
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    if (SSL_CTX_use_certificate_chain_file(context, cert) != 1 || SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1) {
        ERR_print_errors_fp(stderr);
        exit(1);
    }
    tls = 1;
#else
    fprintf(stderr, "built without OpenSSL, so no --tls %s %s\n", cert, key);
    exit(1);
#endif
}

int main(int argc, char **argv) {
    const char *rows = NULL;
    int port = 0, yes = 1;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (!strcmp(argv[i], "--rows")) rows = value, i++;
        else if (!strcmp(argv[i], "--port")) port = atoi(value), i++;
        else if (!strcmp(argv[i], "--latency")) latency = atof(value) * 1e6, i++;
        else if (!strcmp(argv[i], "--stall")) stall = atof(value) * 1e6, i++;
        else if (!strcmp(argv[i], "--refuse")) refuse = atol(value), i++;
        else if (!strcmp(argv[i], "--stall-every")) stall_every = atol(value), i++;
        else if (!strcmp(argv[i], "--tls") && i + 2 < argc) use_tls(argv[i + 1], argv[i + 2]), i += 2;
        else { fprintf(stderr, "unknown argument %s\n", argv[i]); return 2; }
    }
    if (!rows) { fprintf(stderr, "--rows PREFIX is needed\n"); return 2; }
    signal(SIGPIPE, SIG_IGN);
    base64_rows = load(rows, "base64");
    text_rows = load(rows, "text");

    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in where = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof where;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&where, sizeof where) < 0 || listen(listener, 4096) < 0) die("listen");
    getsockname(listener, (struct sockaddr *)&where, &size);
    printf("port %d\n", ntohs(where.sin_port));
    fflush(stdout);

    poller = epoll_create1(0);
    clock_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct epoll_event events[256], knock = {EPOLLIN, {.ptr = &listener}}, tick = {EPOLLIN, {.ptr = &clock_fd}};
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &knock);
    epoll_ctl(poller, EPOLL_CTL_ADD, clock_fd, &tick);
    for (;;) {
        int ready = epoll_wait(poller, events, 256, -1);
        if (ready < 0 && errno != EINTR) die("epoll_wait");
        for (int i = 0; i < ready; i++) {
            void *who = events[i].data.ptr;
            if (who == &listener) on_knock(listener);
            else if (who == &clock_fd) on_time();
            else if (events[i].events & EPOLLOUT) flush_out(who);
            else on_readable(who);
        }
    }
}
