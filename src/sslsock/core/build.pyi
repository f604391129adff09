linked_statically: bool
default_certificate_file: str
default_certificate_folder: str

def build_info() -> dict[str, str]: ...
