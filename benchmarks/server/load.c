/* A load generator that does nothing but count: what the server can give at most, and what reading it costs at least.
 *
 *   load PORT CONNECTIONS SECONDS REQUEST-FILE
 *
 * Sends the request again and again over every connection and prints {"responses", "bytes", "seconds", "cpu_ms"}.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

typedef struct { int fd; size_t left, have; char head[4096]; } Conn; /* left: bytes of the reply still to come */

static char request[1 << 24], piece[1 << 18];
static size_t request_size;
static unsigned long responses, bytes;

static void die(const char *what) { perror(what); exit(1); }

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static void ask(Conn *conn) {
    for (size_t gone = 0; gone < request_size;) {
        ssize_t size = send(conn->fd, request + gone, request_size - gone, MSG_NOSIGNAL);
        if (size > 0) gone += size;
        else if (errno != EAGAIN) die("send");
    }
}

static void on_readable(Conn *conn) {
    for (;;) {
        ssize_t got = recv(conn->fd, piece, sizeof piece, 0);
        if (got < 0 && errno == EAGAIN) return;
        if (got <= 0) die("recv");
        bytes += got;
        if (!conn->left) { /* the head; it comes in one piece with the start of the body, or in very few */
            size_t room = sizeof conn->head - 1 - conn->have, part = (size_t)got < room ? (size_t)got : room;
            memcpy(conn->head + conn->have, piece, part);
            conn->head[conn->have += part] = 0;
            char *end = strstr(conn->head, "\r\n\r\n"), *length = strcasestr(conn->head, "content-length:");
            if (!end || !length) continue;
            conn->left = atol(length + 15) + (end + 4 - conn->head) - (conn->have - part);
            conn->have = 0;
        }
        conn->left -= got;
        if (!conn->left) { responses++; ask(conn); }
    }
}

int main(int argc, char **argv) {
    if (argc != 5) { fprintf(stderr, "load PORT CONNECTIONS SECONDS REQUEST-FILE\n"); return 2; }
    int count = atoi(argv[2]), poller = epoll_create1(0), file = open(argv[4], O_RDONLY), yes = 1;
    struct sockaddr_in where = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    ssize_t size = file < 0 ? -1 : read(file, request, sizeof request);
    if (size <= 0) die(argv[4]);
    request_size = size;
    Conn *conns = calloc(count, sizeof *conns);
    double start = now(), stop = start + atof(argv[3]);
    for (int i = 0; i < count; i++) {
        conns[i].fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(conns[i].fd, (struct sockaddr *)&where, sizeof where) < 0) die("connect");
        setsockopt(conns[i].fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        fcntl(conns[i].fd, F_SETFL, O_NONBLOCK);
        struct epoll_event event = {EPOLLIN, {.ptr = &conns[i]}};
        epoll_ctl(poller, EPOLL_CTL_ADD, conns[i].fd, &event);
        ask(&conns[i]);
    }
    struct epoll_event events[256];
    while (now() < stop) {
        int ready = epoll_wait(poller, events, 256, 100);
        for (int i = 0; i < ready; i++) on_readable(events[i].data.ptr);
    }
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    double cpu = (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1e3 + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e3;
    printf("{\"responses\":%lu,\"bytes\":%lu,\"seconds\":%.3f,\"cpu_ms\":%.1f}\n", responses, bytes, now() - start, cpu);
}
