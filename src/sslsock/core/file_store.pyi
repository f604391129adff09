from typing import final

@final
class FileStore: ...
