"""OpenSSL's certificates and keys: x509.h, x509v3.h, evp.h, pem.h, pkcs12.h, and what they need of others.

What OpenSSL 4.0 returns as const is const here: a C compiler takes older versions' non-const for it too.
"""

from libc.time cimport time_t, tm


cdef extern from "openssl/crypto.h" nogil:
    void OPENSSL_free(void *data)
    void OPENSSL_clear_free(void *data, size_t size)
    void OPENSSL_cleanse(void *data, size_t size)


cdef extern from "openssl/bio.h" nogil:
    ctypedef struct BIO
    ctypedef struct BIO_METHOD

    const BIO_METHOD *BIO_s_mem()
    BIO *BIO_new(const BIO_METHOD *method)
    BIO *BIO_new_mem_buf(const void *data, int size)
    int BIO_free(BIO *bio)
    long BIO_get_mem_data(BIO *bio, char **data)


cdef extern from "openssl/bn.h" nogil:
    ctypedef struct BIGNUM

    void BN_free(BIGNUM *number)
    char *BN_bn2hex(const BIGNUM *number)


cdef extern from "openssl/objects.h" nogil:
    int NID_undef, NID_md5, NID_sha1, NID_md5_sha1, NID_subject_alt_name

    int OBJ_obj2nid(const ASN1_OBJECT *object)
    const char *OBJ_nid2sn(int nid)
    int OBJ_obj2txt(char *buffer, int size, const ASN1_OBJECT *object, int no_name)


cdef extern from "openssl/asn1.h" nogil:
    ctypedef struct ASN1_OBJECT
    ctypedef struct ASN1_STRING
    ctypedef struct ASN1_INTEGER
    ctypedef struct ASN1_TIME

    int ASN1_STRING_length(const ASN1_STRING *string)
    const unsigned char *ASN1_STRING_get0_data(const ASN1_STRING *string)
    int ASN1_STRING_to_UTF8(unsigned char **out, const ASN1_STRING *string)
    BIGNUM *ASN1_INTEGER_to_BN(const ASN1_INTEGER *integer, BIGNUM *number)
    int ASN1_TIME_to_tm(const ASN1_TIME *time, tm *out)
    int ASN1_TIME_cmp_time_t(const ASN1_TIME *time, time_t other)


cdef extern from "openssl/evp.h" nogil:
    ctypedef struct EVP_PKEY
    ctypedef struct EVP_MD
    ctypedef struct EVP_CIPHER
    ctypedef struct EVP_CIPHER_INFO:
        const EVP_CIPHER *cipher
    ctypedef struct PKCS8_PRIV_KEY_INFO

    int EVP_PKEY_RSA

    EVP_MD *EVP_MD_fetch(void *context, const char *name, const char *properties)
    void EVP_MD_free(EVP_MD *digest)

    void EVP_PKEY_free(EVP_PKEY *key)
    int EVP_PKEY_is_a(const EVP_PKEY *key, const char *name)
    const char *EVP_PKEY_get0_type_name(const EVP_PKEY *key)
    int EVP_PKEY_eq(const EVP_PKEY *a, const EVP_PKEY *b)
    EVP_PKEY *d2i_AutoPrivateKey(EVP_PKEY **out, const unsigned char **data, long size)
    EVP_PKEY *d2i_PublicKey(int kind, EVP_PKEY **out, const unsigned char **data, long size)


cdef extern from "openssl/x509.h" nogil:
    ctypedef struct X509
    ctypedef struct X509_NAME
    ctypedef struct X509_NAME_ENTRY
    ctypedef struct X509_SIG
    ctypedef struct X509_REQ
    ctypedef struct X509_CRL

    unsigned long XN_FLAG_RFC2253

    # certificates
    void X509_free(X509 *certificate)
    int X509_up_ref(X509 *certificate)
    X509 *d2i_X509(X509 **out, const unsigned char **data, long size)
    int i2d_X509(const X509 *certificate, unsigned char **out)
    X509 *d2i_X509_AUX(X509 **out, const unsigned char **data, long size)
    int i2d_X509_AUX(const X509 *certificate, unsigned char **out)
    int X509_digest(const X509 *certificate, const EVP_MD *digest, unsigned char *out, unsigned int *size)
    int X509_get_signature_info(X509 *certificate, int *digest, int *key, int *bits, unsigned int *flags)
    const X509_NAME *X509_get_subject_name(const X509 *certificate)
    const X509_NAME *X509_get_issuer_name(const X509 *certificate)
    const ASN1_INTEGER *X509_get0_serialNumber(const X509 *certificate)
    const ASN1_TIME *X509_get0_notBefore(const X509 *certificate)
    const ASN1_TIME *X509_get0_notAfter(const X509 *certificate)
    void *X509_get_ext_d2i(const X509 *certificate, int nid, int *critical, int *index)

    # names
    int X509_NAME_entry_count(const X509_NAME *name)
    const X509_NAME_ENTRY *X509_NAME_get_entry(const X509_NAME *name, int index)
    const ASN1_OBJECT *X509_NAME_ENTRY_get_object(const X509_NAME_ENTRY *entry)
    const ASN1_STRING *X509_NAME_ENTRY_get_data(const X509_NAME_ENTRY *entry)
    int X509_NAME_print_ex(BIO *out, const X509_NAME *name, int indent, unsigned long flags)

    # keys
    EVP_PKEY *d2i_PUBKEY(EVP_PKEY **out, const unsigned char **data, long size)
    int i2d_PUBKEY(const EVP_PKEY *key, unsigned char **out)
    PKCS8_PRIV_KEY_INFO *d2i_PKCS8_PRIV_KEY_INFO(
        PKCS8_PRIV_KEY_INFO **out, const unsigned char **data, long size)
    int i2d_PKCS8_PRIV_KEY_INFO(const PKCS8_PRIV_KEY_INFO *info, unsigned char **out)
    void PKCS8_PRIV_KEY_INFO_free(PKCS8_PRIV_KEY_INFO *info)
    PKCS8_PRIV_KEY_INFO *EVP_PKEY2PKCS8(const EVP_PKEY *key)
    X509_SIG *d2i_X509_SIG(X509_SIG **out, const unsigned char **data, long size)
    void X509_SIG_free(X509_SIG *encrypted)

    # what is told apart from certificates and keys only to name it
    X509_REQ *d2i_X509_REQ(X509_REQ **out, const unsigned char **data, long size)
    void X509_REQ_free(X509_REQ *request)
    X509_CRL *d2i_X509_CRL(X509_CRL **out, const unsigned char **data, long size)
    int i2d_X509_CRL(X509_CRL *crl, unsigned char **out)
    void X509_CRL_free(X509_CRL *crl)
    X509_NAME *X509_CRL_get_issuer(const X509_CRL *crl)
    const ASN1_TIME *X509_CRL_get0_lastUpdate(const X509_CRL *crl)
    const ASN1_TIME *X509_CRL_get0_nextUpdate(const X509_CRL *crl)


cdef extern from "openssl/x509v3.h" nogil:
    ctypedef struct GENERAL_NAME
    ctypedef struct GENERAL_NAMES

    int GEN_OTHERNAME, GEN_EMAIL, GEN_DNS, GEN_X400, GEN_DIRNAME, GEN_EDIPARTY, GEN_URI, GEN_IPADD, GEN_RID

    void GENERAL_NAMES_free(GENERAL_NAMES *names)
    int sk_GENERAL_NAME_num(const GENERAL_NAMES *names)
    GENERAL_NAME *sk_GENERAL_NAME_value(const GENERAL_NAMES *names, int index)
    const void *GENERAL_NAME_get0_value(const GENERAL_NAME *name, int *kind)
    int GENERAL_NAME_print(BIO *out, GENERAL_NAME *name)


cdef extern from "openssl/pem.h" nogil:
    int PEM_BUFSIZE

    ctypedef int pem_password_cb(char *buffer, int size, int writing, void *argument) noexcept nogil

    int PEM_read_bio(BIO *bio, char **name, char **header, unsigned char **data, long *size)
    int PEM_get_EVP_CIPHER_INFO(char *header, EVP_CIPHER_INFO *cipher)
    int PEM_do_header(
        EVP_CIPHER_INFO *cipher, unsigned char *data, long *size, pem_password_cb *callback, void *argument)
    int PEM_write_bio_X509(BIO *out, const X509 *certificate)


cdef extern from "openssl/pkcs12.h" nogil:
    ctypedef struct PKCS12

    PKCS8_PRIV_KEY_INFO *PKCS8_decrypt(const X509_SIG *encrypted, const char *passphrase, int size)
    PKCS12 *d2i_PKCS12(PKCS12 **out, const unsigned char **data, long size)
    void PKCS12_free(PKCS12 *container)


# what `issue` needs to make certificates

cdef extern from "openssl/rand.h" nogil:
    int RAND_bytes(unsigned char *out, int size)


cdef extern from "openssl/ec.h" nogil:
    EVP_PKEY *EVP_EC_gen(const char *curve)


cdef extern from * nogil:
    int MBSTRING_UTF8
    int NID_basic_constraints, NID_key_usage, NID_ext_key_usage, NID_subject_key_identifier, NID_authority_key_identifier

    ctypedef struct X509_EXTENSION
    ctypedef struct X509V3_CTX:
        pass

    const BIO_METHOD *BIO_s_secmem()
    BIGNUM *BN_bin2bn(const unsigned char *data, int size, BIGNUM *out)
    ASN1_INTEGER *BN_to_ASN1_INTEGER(const BIGNUM *number, ASN1_INTEGER *out)
    const EVP_MD *EVP_sha256()

    X509 *X509_new()
    int X509_set_version(X509 *certificate, long version)
    ASN1_INTEGER *X509_get_serialNumber(X509 *certificate)
    ASN1_TIME *X509_getm_notBefore(X509 *certificate)
    ASN1_TIME *X509_getm_notAfter(X509 *certificate)
    ASN1_TIME *X509_gmtime_adj(ASN1_TIME *time, long seconds)
    int X509_set_pubkey(X509 *certificate, EVP_PKEY *key)
    int X509_set_subject_name(X509 *certificate, const X509_NAME *name)
    int X509_set_issuer_name(X509 *certificate, const X509_NAME *name)
    int X509_check_ca(X509 *certificate)
    int X509_check_private_key(const X509 *certificate, const EVP_PKEY *key)
    int X509_sign(X509 *certificate, EVP_PKEY *key, const EVP_MD *digest)
    int X509_add_ext(X509 *certificate, X509_EXTENSION *extension, int place)
    void X509_EXTENSION_free(X509_EXTENSION *extension)
    void X509V3_set_ctx(
        X509V3_CTX *context, X509 *issuer, X509 *subject, X509_REQ *request, X509_CRL *crl, int flags)
    X509_EXTENSION *X509V3_EXT_conf_nid(void *settings, X509V3_CTX *context, int kind, const char *value)

    X509_NAME *X509_NAME_new()
    void X509_NAME_free(X509_NAME *name)
    int X509_NAME_add_entry_by_txt(
        X509_NAME *name, const char *field, int kind, const unsigned char *data, int size, int place, int set_)

    int PEM_write_bio_PrivateKey(
        BIO *out, const EVP_PKEY *key, const EVP_CIPHER *cipher, const unsigned char *passphrase, int size,
        pem_password_cb *callback, void *argument)


# what `ssl_certificate` needs

cdef extern from * nogil:
    ctypedef struct OPENSSL_STACK_ACCESS "AUTHORITY_INFO_ACCESS"
    ctypedef struct OPENSSL_STACK_DIST_POINT "CRL_DIST_POINTS"

    ctypedef struct ACCESS_DESCRIPTION:
        ASN1_OBJECT *method
        GENERAL_NAME *location

    ctypedef union dist_point_names:
        GENERAL_NAMES *fullname

    ctypedef struct DIST_POINT_NAME:
        int type  # 0: full names
        dist_point_names name

    ctypedef struct DIST_POINT:
        DIST_POINT_NAME *distpoint

    int NID_info_access, NID_ad_OCSP, NID_ad_ca_issuers, NID_crl_distribution_points

    void AUTHORITY_INFO_ACCESS_free(OPENSSL_STACK_ACCESS *accesses)
    int sk_ACCESS_DESCRIPTION_num(const OPENSSL_STACK_ACCESS *accesses)
    ACCESS_DESCRIPTION *sk_ACCESS_DESCRIPTION_value(const OPENSSL_STACK_ACCESS *accesses, int index)
    void CRL_DIST_POINTS_free(OPENSSL_STACK_DIST_POINT *points)
    int sk_DIST_POINT_num(const OPENSSL_STACK_DIST_POINT *points)
    DIST_POINT *sk_DIST_POINT_value(const OPENSSL_STACK_DIST_POINT *points, int index)

    int BIO_gets(BIO *bio, char *line, int size)
    int i2a_ASN1_INTEGER(BIO *out, const ASN1_INTEGER *integer)
    int ASN1_TIME_print(BIO *out, const ASN1_TIME *time)
    int X509_NAME_ENTRY_set(const X509_NAME_ENTRY *entry)
    long X509_get_version(const X509 *certificate)
    unsigned long X509_subject_name_hash(X509 *certificate)
    int X509_cmp(const X509 *a, const X509 *b)
    int PEM_write_bio_X509_AUX(BIO *out, const X509 *certificate)
