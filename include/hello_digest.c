#include <pthread.h>

#include <openssl/evp.h>

#include "hello_digest.h"

static pthread_once_t once = PTHREAD_ONCE_INIT;
static const EVP_MD *sha256;

/* EVP_sha256() is looked up anew for each digest (crypto(7)). */
static void fetch(void)
{
    sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    if (sha256 == NULL)
        sha256 = EVP_sha256();
}

/* RFC 8446, 4.1.2 and, for a client that tries ECH with a server that has none, RFC 9849, 6.1.5. */
static int may_change(int extension)
{
    switch (extension) {
    case TLSEXT_TYPE_key_share:
    case TLSEXT_TYPE_early_data:
    case TLSEXT_TYPE_cookie:
    case TLSEXT_TYPE_psk:
    case TLSEXT_TYPE_padding:
    case 0xFE0D: /* encrypted_client_hello */
        return 1;
    }
    return 0;
}

/* With its length in front, so that no two hellos are the same bytes. */
static int add(EVP_MD_CTX *context, const void *data, size_t size)
{
    return EVP_DigestUpdate(context, &size, sizeof(size)) && EVP_DigestUpdate(context, data, size);
}

/* libssl knows some thirty extensions, each of which comes once: searching would cost more. */
static void sort(int *numbers, size_t count)
{
    for (size_t place = 1; place < count; place++) {
        int number = numbers[place];
        size_t free_place = place;
        for (; free_place > 0 && numbers[free_place - 1] > number; free_place--)
            numbers[free_place] = numbers[free_place - 1];
        numbers[free_place] = number;
    }
}

static int add_extensions(EVP_MD_CTX *context, SSL *ssl)
{
    int *extensions;
    size_t count, place;
    int good = SSL_client_hello_get1_extensions_present(ssl, &extensions, &count);

    if (!good)
        return 0;
    sort(extensions, count);
    for (place = 0; good && place < count; place++) {
        const unsigned char *content;
        size_t size;
        if (!may_change(extensions[place]) && SSL_client_hello_get0_ext(ssl, extensions[place], &content, &size))
            good = EVP_DigestUpdate(context, &extensions[place], sizeof(int)) && add(context, content, size);
    }
    OPENSSL_free(extensions);
    return good;
}

int hello_digest(SSL *ssl, unsigned char digest[HELLO_DIGEST_SIZE])
{
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    unsigned int version = SSL_client_hello_get0_legacy_version(ssl);
    const unsigned char *part;
    size_t size;
    int good;

    pthread_once(&once, fetch);
    good = context != NULL && EVP_DigestInit_ex(context, sha256, NULL) && EVP_DigestUpdate(context, &version, sizeof(version));
    if (good) {
        size = SSL_client_hello_get0_random(ssl, &part);
        good = add(context, part, size);
    }
    if (good) {
        size = SSL_client_hello_get0_session_id(ssl, &part);
        good = add(context, part, size);
    }
    if (good) {
        size = SSL_client_hello_get0_ciphers(ssl, &part);
        good = add(context, part, size);
    }
    if (good) {
        size = SSL_client_hello_get0_compression_methods(ssl, &part);
        good = add(context, part, size);
    }
    good = good && add_extensions(context, ssl) && EVP_DigestFinal_ex(context, digest, NULL);
    EVP_MD_CTX_free(context);
    return good;
}
