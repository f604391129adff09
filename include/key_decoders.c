#include "key_decoders.h"

#include <openssl/crypto.h>
#include <openssl/decoder.h>
#include <openssl/err.h>
#include <openssl/objects.h>

/* Each kind of keys has a place of its own: by OpenSSL's number rsaEncryption, id-ecPublicKey, ED25519 and ED448 have, and behind them
 * the older forms. */
#define NUMBERS 11
#define PLACES (NUMBERS + 2)

struct decoders {
    const char *kind; /* of keys: OpenSSL's name, which is a constant */
    OSSL_DECODER_CTX *context;
    EVP_PKEY *key; /* where it puts what it has decoded */
};

/* Whoever decodes has taken them from their place, so nobody else uses them, and a fork meanwhile leaves nothing locked. */
static struct decoders *places[PLACES];

static int are_kept(void)
{
    return OpenSSL_version_num() < 0x30200000;
}

static void forget(struct decoders *decoders)
{
    if (decoders == NULL)
        return;
    OSSL_DECODER_CTX_free(decoders->context);
    OPENSSL_free(decoders);
}

static struct decoders *take(int place, const char *kind, const char *form)
{
    struct decoders *taken = __atomic_exchange_n(&places[place], NULL, __ATOMIC_ACQUIRE);

    if (taken != NULL && taken->kind == kind)
        return taken;
    forget(taken);
    taken = OPENSSL_zalloc(sizeof *taken);
    if (taken == NULL)
        return NULL;
    taken->kind = kind;
    taken->context = OSSL_DECODER_CTX_new_for_pkey(&taken->key, "DER", form, kind, EVP_PKEY_KEYPAIR, NULL, NULL);
    if (taken->context == NULL) {
        forget(taken);
        return NULL;
    }
    return taken;
}

/* The key that `*data` begins with, which is then passed over; NULL: there is none. Leaves the error queue as it was. */
static EVP_PKEY *decoded(int place, const char *kind, const char *form, const unsigned char **data, size_t size)
{
    struct decoders *taken;
    const unsigned char *at = *data;
    EVP_PKEY *key = NULL;

    ERR_set_mark();
    taken = take(place, kind, form);
    if (taken != NULL) {
        if (OSSL_DECODER_from_data(taken->context, &at, &size) == 1) {
            key = taken->key;
            *data = at;
        }
        taken->key = NULL;
        forget(__atomic_exchange_n(&places[place], taken, __ATOMIC_ACQ_REL));
    }
    ERR_pop_to_mark();
    return key;
}

EVP_PKEY *private_key_of(const PKCS8_PRIV_KEY_INFO *info)
{
    const ASN1_OBJECT *algorithm = NULL;
    unsigned char *encoded = NULL;
    const unsigned char *data;
    EVP_PKEY *key = NULL;
    int number = NID_undef, size;

    if (are_kept() && PKCS8_pkey_get0(&algorithm, NULL, NULL, NULL, info) == 1)
        number = OBJ_obj2nid(algorithm);
    if (number != NID_undef && (size = i2d_PKCS8_PRIV_KEY_INFO(info, &encoded)) > 0) {
        data = encoded;
        key = decoded(number % NUMBERS, OBJ_nid2sn(number), "PrivateKeyInfo", &data, (size_t) size);
        OPENSSL_clear_free(encoded, (size_t) size);
    }
    return key != NULL ? key : EVP_PKCS82PKEY(info); /* which finds what has no decoder, and tells why there is no key */
}

EVP_PKEY *older_private_key(const unsigned char **data, long size)
{
    EVP_PKEY *key = NULL;

    if (are_kept()) {
        key = decoded(NUMBERS, "EC", "type-specific", data, (size_t) size);
        if (key == NULL)
            key = decoded(NUMBERS + 1, "RSA", "type-specific", data, (size_t) size);
    }
    return key != NULL ? key : d2i_AutoPrivateKey(NULL, data, size);
}
