# The modules of sslsock.core lie in one shared object, which their names do not lead to.
hiddenimports = ["sslsock.core.compiled_imports"]
