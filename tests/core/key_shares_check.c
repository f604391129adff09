/* After a handshake over memory, with the certificate and key of the two files named: what a connection still holds of its key
 * shares, once they are forgotten; and that it goes on, in both directions and after a key update. */
#include <openssl/bio.h>
#include <stdio.h>
#include <string.h>

#include "key_shares.h"

static int failures;

static void expect(int held, const char *what)
{
    if (!held) {
        fprintf(stderr, "not so: %s\n", what);
        failures++;
    }
}

static size_t private_size(SSL *ssl)
{
    EVP_PKEY *key = NULL;
    size_t size = 0;
    if (!SSL_get_tmp_key(ssl, &key))
        return 0;
    ERR_set_mark();
    if (!EVP_PKEY_get_raw_private_key(key, NULL, &size))
        size = 0;
    ERR_pop_to_mark();
    EVP_PKEY_free(key);
    return size;
}

static void pass(SSL *from, SSL *to, const char *what)
{
    char text[6] = "";
    expect(SSL_write(from, "bytes", 5) == 5 && SSL_read(to, text, 5) == 5 && strcmp(text, "bytes") == 0, what);
}

int main(int count, char **arguments)
{
    SSL_CTX *contexts[2] = {SSL_CTX_new(TLS_client_method()), SSL_CTX_new(TLS_server_method())};
    SSL *ends[2];
    BIO *bios[2];
    int end, step;
    expect(count == 3 && SSL_CTX_use_certificate_file(contexts[1], arguments[1], SSL_FILETYPE_PEM) == 1
        && SSL_CTX_use_PrivateKey_file(contexts[1], arguments[2], SSL_FILETYPE_PEM) == 1, "there is a certificate");
    BIO_new_bio_pair(&bios[0], 1 << 16, &bios[1], 1 << 16);
    for (end = 0; end < 2; end++) {
        SSL_CTX_set1_groups_list(contexts[end], "X25519");
        ends[end] = SSL_new(contexts[end]);
        SSL_set_bio(ends[end], bios[end], bios[end]);
    }
    SSL_set_connect_state(ends[0]);
    SSL_set_accept_state(ends[1]);
    for (step = 0; step < 10 && !(SSL_is_init_finished(ends[0]) && SSL_is_init_finished(ends[1])); step++)
        SSL_do_handshake(ends[step % 2]);
    expect(SSL_version(ends[0]) == TLS1_3_VERSION && SSL_is_init_finished(ends[1]), "the handshake is done");
    ERR_clear_error();
    for (end = 0; end < 2; end++) {
        expect(private_size(ends[end]) == 32, "libssl keeps the private share");
        forget_key_shares(ends[end]);
        expect(private_size(ends[end]) == 0, "the private share is forgotten");
    }
    expect(ERR_peek_error() == 0, "the error queue is empty");
    pass(ends[0], ends[1], "the client's data arrives");
    pass(ends[1], ends[0], "the server's data arrives");
    expect(SSL_key_update(ends[1], SSL_KEY_UPDATE_REQUESTED) == 1, "keys can be updated");
    pass(ends[1], ends[0], "the server's data arrives after a key update");
    pass(ends[0], ends[1], "and the client's");
    for (end = 0; end < 2; end++) {
        SSL_free(ends[end]);
        SSL_CTX_free(contexts[end]);
    }
    return failures != 0;
}
