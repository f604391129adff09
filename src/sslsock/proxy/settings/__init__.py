"""What the proxy is told to do: settings, and the ways in which somebody says them.

    model              the settings as plain values, which everything else goes by
    options            the command line
    config_file        the TOML file; on which line of it something stands (`toml_lines`)
    builder            settings made of named values, wherever they were written; a group of names each:
                       `acme_values`, `back_end_values`, `directory_values`, `fleet_values`, `limit_values`
    table              a named value asked for by its kind
    hosts, allowed     what is taken for a host or a network, and for the name of a client
    tls_profiles       Mozilla's profiles

Whether the files and names in them are there and good is looked at later (`check`, one folder up).
"""
