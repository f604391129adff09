#include "key_decoders.h"

#include <openssl/crypto.h>
#include <openssl/decoder.h>
#include <openssl/err.h>
#include <openssl/objects.h>

/* Finds those of a kind of keys again: OpenSSL's number of rsaEncryption, id-ecPublicKey, ED25519, ED448 each has a place of its own. */
#define PLACES 11

struct decoders {
    int kind; /* of keys: OpenSSL's number */
    OSSL_DECODER_CTX *context;
    EVP_PKEY *key; /* where it puts what it has decoded */
};

/* Whoever decodes has taken them from their place, so nobody else uses them, and a fork meanwhile leaves nothing locked. */
static struct decoders *places[PLACES];

static void forget(struct decoders *decoders)
{
    if (decoders == NULL)
        return;
    OSSL_DECODER_CTX_free(decoders->context);
    OPENSSL_free(decoders);
}

static struct decoders *take(int kind)
{
    struct decoders *taken = __atomic_exchange_n(&places[kind % PLACES], NULL, __ATOMIC_ACQUIRE);

    if (taken != NULL && taken->kind == kind)
        return taken;
    forget(taken);
    taken = OPENSSL_zalloc(sizeof *taken);
    if (taken == NULL)
        return NULL;
    taken->kind = kind;
    taken->context = OSSL_DECODER_CTX_new_for_pkey(
        &taken->key, "DER", "PrivateKeyInfo", OBJ_nid2sn(kind), EVP_PKEY_KEYPAIR, NULL, NULL);
    if (taken->context == NULL) {
        forget(taken);
        return NULL;
    }
    return taken;
}

static EVP_PKEY *decoded(int kind, const unsigned char *data, size_t size)
{
    struct decoders *taken = take(kind);
    EVP_PKEY *key = NULL;

    if (taken == NULL)
        return NULL;
    if (OSSL_DECODER_from_data(taken->context, &data, &size) == 1)
        key = taken->key;
    taken->key = NULL;
    forget(__atomic_exchange_n(&places[kind % PLACES], taken, __ATOMIC_ACQ_REL));
    return key;
}

EVP_PKEY *private_key_of(const PKCS8_PRIV_KEY_INFO *info)
{
    const ASN1_OBJECT *algorithm = NULL;
    unsigned char *data = NULL;
    EVP_PKEY *key = NULL;
    int kind = NID_undef, size;

    if (OpenSSL_version_num() < 0x30200000 && PKCS8_pkey_get0(&algorithm, NULL, NULL, NULL, info) == 1)
        kind = OBJ_obj2nid(algorithm);
    if (kind != NID_undef) {
        ERR_set_mark();
        size = i2d_PKCS8_PRIV_KEY_INFO(info, &data);
        if (size > 0) {
            key = decoded(kind, data, (size_t) size);
            OPENSSL_clear_free(data, (size_t) size);
        }
        ERR_pop_to_mark();
    }
    return key != NULL ? key : EVP_PKCS82PKEY(info); /* which finds what has no decoder, and tells why there is no key */
}
