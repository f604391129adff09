/* The least that libssl costs over memory BIOs: C, one thread, the stock memory BIO. The yardstick of engine.py, which
 * compiles and runs it.
 *
 *     engine_limit version
 *     engine_limit FOLDER bulk SIZE COUNT        a client encrypts SIZE bytes, a server decrypts them; COUNT times
 *     engine_limit FOLDER handshake 0|1 COUNT    COUNT handshakes, both sides, full or resumed
 *
 * FOLDER holds ca.pem, server.pem, server.key. Prints the CPU seconds of the COUNT rounds, the cipher suite and the number
 * of resumed handshakes. Suite and group come from the OpenSSL configuration, as for the other peers. */
#include <openssl/err.h>
#include <openssl/ssl.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { WARM_UP = 64 }; /* rounds before the timer: the other peers' process is warm already */

static SSL_CTX *client_context, *server_context;
static SSL_SESSION *newest;

static void check(int ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "engine_limit: %s\n", what);
    ERR_print_errors_fp(stderr);
    exit(1);
}

static double cpu_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static int keep_session(SSL *ssl, SSL_SESSION *session)
{
    (void)ssl;
    SSL_SESSION_free(newest);
    newest = session;
    return 1;
}

static void make_contexts(const char *folder)
{
    char ca[4096], chain[4096], key[4096];
    snprintf(ca, sizeof ca, "%s/ca.pem", folder);
    snprintf(chain, sizeof chain, "%s/server.pem", folder);
    snprintf(key, sizeof key, "%s/server.key", folder);

    client_context = SSL_CTX_new(TLS_client_method());
    server_context = SSL_CTX_new(TLS_server_method());
    check(client_context != NULL && server_context != NULL, "no contexts");
    check(SSL_CTX_load_verify_locations(client_context, ca, NULL), ca);
    check(SSL_CTX_use_certificate_chain_file(server_context, chain), chain);
    check(SSL_CTX_use_PrivateKey_file(server_context, key, SSL_FILETYPE_PEM), key);
    check(SSL_CTX_set_min_proto_version(client_context, TLS1_3_VERSION), "no TLS 1.3");
    SSL_CTX_set_verify(client_context, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_session_cache_mode(client_context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(client_context, keep_session);
    SSL_CTX_set_session_cache_mode(server_context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_session_id_context(server_context, (const unsigned char *)"x", 1);
}

static void make_pair(SSL **client, SSL **server, int resume)
{
    BIO *up = BIO_new(BIO_s_mem()), *down = BIO_new(BIO_s_mem());
    int turn, client_done = 0, server_done = 0;
    char nothing[1];

    *client = SSL_new(client_context);
    *server = SSL_new(server_context);
    check(*client != NULL && *server != NULL && up != NULL && down != NULL, "no memory");
    BIO_set_mem_eof_return(up, -1);
    BIO_set_mem_eof_return(down, -1);
    BIO_up_ref(up);
    BIO_up_ref(down);
    SSL_set_bio(*client, down, up);
    SSL_set_bio(*server, up, down);
    SSL_set_tlsext_host_name(*client, "localhost");
    check(SSL_set1_host(*client, "localhost"), "no name to verify");
    SSL_set_connect_state(*client);
    SSL_set_accept_state(*server);
    if (resume && newest != NULL)
        check(SSL_set_session(*client, newest), "the session is refused");
    for (turn = 0; turn < 10 && !(client_done && server_done); turn++) {
        client_done = client_done || SSL_do_handshake(*client) == 1;
        server_done = server_done || SSL_do_handshake(*server) == 1;
    }
    check(client_done && server_done, "the handshake does not end");
    SSL_read(*client, nothing, sizeof nothing); /* the tickets */
}

static void free_pair(SSL *client, SSL *server)
{
    SSL_set_shutdown(client, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN); /* or its session is not to be resumed */
    SSL_set_shutdown(server, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(client);
    SSL_free(server);
}

int main(int count, char **words)
{
    SSL *client, *server;
    long number, rounds, reused = 0;
    double begin = 0, spent;
    const char *cipher = "";

    if (count == 2 && strcmp(words[1], "version") == 0) {
        puts(OpenSSL_version(OPENSSL_VERSION));
        return 0;
    }
    check(count == 5, "usage: engine_limit FOLDER bulk SIZE COUNT | FOLDER handshake 0|1 COUNT");
    rounds = atol(words[4]);
    make_contexts(words[1]);
    make_pair(&client, &server, 0);
    cipher = SSL_get_cipher_name(client);
    if (strcmp(words[2], "bulk") == 0) {
        size_t size = (size_t)atol(words[3]), written, got, all;
        char *plain = malloc(size), *room = malloc(size);
        check(plain != NULL && room != NULL, "no memory");
        memset(plain, 7, size);
        for (number = -WARM_UP; number < rounds; number++) {
            if (number == 0)
                begin = cpu_seconds();
            check(SSL_write_ex(client, plain, size, &written), "SSL_write_ex");
            for (all = 0; all < size; all += got)
                check(SSL_read_ex(server, room + all, size - all, &got), "SSL_read_ex");
        }
        spent = cpu_seconds() - begin;
        free(plain);
        free(room);
        free_pair(client, server);
    } else {
        int resume = atoi(words[3]);
        free_pair(client, server);
        for (number = -WARM_UP / 8; number < rounds; number++) {
            if (number == 0)
                begin = cpu_seconds();
            make_pair(&client, &server, resume);
            reused += number >= 0 && SSL_session_reused(client);
            free_pair(client, server);
        }
        spent = cpu_seconds() - begin;
    }
    printf("%.9f %s %ld\n", spent, cipher, reused);
    SSL_SESSION_free(newest);
    SSL_CTX_free(client_context);
    SSL_CTX_free(server_context);
    return 0;
}
