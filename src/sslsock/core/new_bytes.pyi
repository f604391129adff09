# What is here is for C.
