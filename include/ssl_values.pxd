"""What `sslsock._ssl` has beside its classes: ssl_values.h, and openssl/rand.h, objects.h, pem.h as far as its functions need them."""

from openssl_x509 cimport ASN1_OBJECT, BIO, X509


cdef extern from "ssl_values.h" nogil:
    struct ssl_value:
        const char *name
        long long value

    struct ssl_switch:
        const char *name
        bint on

    const ssl_value ssl_values[]
    const ssl_switch ssl_switches[]
    int SSL_VALUES, SSL_SWITCHES


cdef extern from "openssl_compat.h" nogil:
    char *compat_builtin_sigalgs()


cdef extern from "openssl/opensslv.h" nogil:
    unsigned long OPENSSL_VERSION_NUMBER


cdef extern from "openssl/rand.h" nogil:
    void RAND_add(const void *data, int size, double entropy)
    int RAND_bytes(unsigned char *out, int size)
    int RAND_status()


cdef extern from "openssl/objects.h" nogil:
    int NID_undef

    ASN1_OBJECT *OBJ_txt2obj(const char *text, int no_name)
    ASN1_OBJECT *OBJ_nid2obj(int nid)
    int OBJ_obj2nid(const ASN1_OBJECT *object)
    const char *OBJ_nid2sn(int nid)
    const char *OBJ_nid2ln(int nid)
    void ASN1_OBJECT_free(ASN1_OBJECT *object)


cdef extern from "openssl/pem.h" nogil:
    BIO *BIO_new_file(const char *path, const char *mode)
    X509 *PEM_read_bio_X509(BIO *bio, X509 **out, void *callback, void *argument)


cdef extern from "openssl/x509.h" nogil:
    const char *X509_get_default_cert_file_env()
    const char *X509_get_default_cert_dir_env()
