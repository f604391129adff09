import asyncio

def use_classes(
    reader: type[asyncio.StreamReader], writer: type[asyncio.StreamWriter], protocol: type[asyncio.StreamReaderProtocol]
) -> None: ...
