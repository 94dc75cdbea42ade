/* load redis|http SOCKET KEYS REQUESTS EXPONENT: requests after Zipf over a UNIX socket, pipelined, one connection.
 *
 * redis: sets KEYS values of 2400 bytes, then 9 reads to 1 write; the keys set first are asked for most.
 * http:  GET /fill/KEYS, then GET /item/N with the popular N scattered.
 * KEYS is a multiple of 32.  The same seed each time, so every run asks for the same things in the same order.
 */
#include "common.h"
#include <math.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define VALUE_BYTES 2400
/* So much is on its way that the server never waits: to wake up costs a virtual machine more than to answer. */
#define BATCH 32
#define BATCHES_IN_FLIGHT 8

static int connection;
static char incoming[1 << 18];
static size_t held, used; /* bytes in `incoming`, and of them the ones that are done with */
static char value[VALUE_BYTES + 1];

static void connect_to(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    connection = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connection < 0 || connect(connection, (struct sockaddr *)&address, sizeof address) < 0)
        die(path);
}

static void send_all(const char *data, size_t bytes) {
    while (bytes > 0) {
        ssize_t sent = write(connection, data, bytes);
        if (sent <= 0)
            die("write");
        data += sent;
        bytes -= (size_t)sent;
    }
}

static void receive_more(void) {
    memmove(incoming, incoming + used, held - used);
    held -= used;
    used = 0;
    ssize_t got = read(connection, incoming + held, sizeof incoming - 1 - held);
    if (got <= 0)
        die("the server closed the connection");
    held += (size_t)got;
    incoming[held] = 0;
}

static char *text_until(const char *end) {
    char *found;
    while ((found = strstr(incoming + used, end)) == NULL)
        receive_more();
    return found;
}

static void skip(size_t bytes) {
    while (held - used < bytes)
        receive_more();
    used += bytes;
}

static void receive_redis(void) {
    char *end = text_until("\r\n");
    char kind = incoming[used];
    long bytes = strtol(incoming + used + 1, NULL, 10);
    if (kind == '-' || (kind == '$' && bytes < 0)) {
        fprintf(stderr, "redis answered %.*s\n", (int)(end - incoming) - (int)used, incoming + used);
        exit(1);
    }
    skip((size_t)(end - incoming) - used + 2);
    if (kind == '$')
        skip((size_t)bytes + 2);
}

static void receive_http(void) {
    char *end = text_until("\r\n\r\n");
    char *length = strstr(incoming + used, "Content-Length: ");
    if (strncmp(incoming + used, "HTTP/1.1 200", 12) != 0 || length == NULL || length > end) {
        fprintf(stderr, "the service answered %.60s\n", incoming + used);
        exit(1);
    }
    size_t bytes = strtoul(length + 16, NULL, 10);
    skip((size_t)(end - incoming) - used + 4 + bytes);
}

/* cumulative[i]: the share of requests for the i + 1 most popular keys, in 1/2^53. */
static uint64_t *zipf(size_t keys, double exponent) {
    uint64_t *cumulative = malloc(keys * sizeof *cumulative);
    double all = 0, sum = 0;
    if (cumulative == NULL)
        die("malloc");
    for (size_t i = 0; i < keys; i++)
        all += pow((double)(i + 1), -exponent);
    for (size_t i = 0; i < keys; i++) {
        sum += pow((double)(i + 1), -exponent);
        cumulative[i] = (uint64_t)(sum / all * (double)((uint64_t)1 << 53));
    }
    return cumulative;
}

static size_t drawn(const uint64_t *cumulative, size_t keys, uint64_t n) {
    uint64_t wanted = mixed(n) >> 11;
    size_t low = 0, high = keys - 1;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (cumulative[middle] > wanted)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static int batches_sent;

static void receive_batch(void (*receive)(void)) {
    for (int i = 0; i < BATCH; i++)
        receive();
    batches_sent--;
}

static void exchange(const char *batch, size_t bytes, void (*receive)(void)) {
    send_all(batch, bytes);
    if (++batches_sent == BATCHES_IN_FLIGHT)
        receive_batch(receive);
}

static void receive_rest(void (*receive)(void)) {
    while (batches_sent > 0)
        receive_batch(receive);
}

static int set_request(char *to, size_t key) {
    fill_with_text(value, VALUE_BYTES, (uint64_t)key << 16);
    return sprintf(to, "*3\r\n$3\r\nSET\r\n$11\r\nkey:%07zu\r\n$%d\r\n%s\r\n", key, VALUE_BYTES, value);
}

static void redis(size_t keys, uint64_t requests, const uint64_t *cumulative) {
    static char batch[BATCH * (VALUE_BYTES + 128)];
    for (uint64_t done = 0; done < keys + requests; done += BATCH) {
        int length = 0;
        for (uint64_t n = done; n < done + BATCH; n++) {
            size_t key = n < keys ? n : drawn(cumulative, keys, n);
            if (n < keys || n % 10 == 0)
                length += set_request(batch + length, key);
            else
                length += sprintf(batch + length, "*2\r\n$3\r\nGET\r\n$11\r\nkey:%07zu\r\n", key);
        }
        exchange(batch, (size_t)length, receive_redis);
    }
    receive_rest(receive_redis);
}

static void http(size_t keys, uint64_t requests, const uint64_t *cumulative) {
    static char batch[BATCH * 128];
    send_all(batch, (size_t)sprintf(batch, "GET /fill/%zu HTTP/1.1\r\nHost: x\r\n\r\n", keys));
    receive_http();
    for (uint64_t done = 0; done < requests; done += BATCH) {
        int length = 0;
        for (uint64_t n = done; n < done + BATCH; n++) {
            size_t item = drawn(cumulative, keys, n) * 7919 % keys;
            length += sprintf(batch + length, "GET /item/%zu HTTP/1.1\r\nHost: x\r\n\r\n", item);
        }
        exchange(batch, (size_t)length, receive_http);
    }
    receive_rest(receive_http);
}

int main(int count, char **arguments) {
    size_t keys = number(count, arguments, 3, "KEYS");
    uint64_t requests = number(count, arguments, 4, "REQUESTS");
    const uint64_t *cumulative = zipf(keys, count > 5 ? atof(arguments[5]) : 1.0);
    connect_to(arguments[2]);
    if (strcmp(arguments[1], "redis") == 0)
        redis(keys, requests, cumulative);
    else
        http(keys, requests, cumulative);
    printf("{\"keys\": %zu, \"requests\": %llu}\n", keys, (unsigned long long)requests);
    return 0;
}
