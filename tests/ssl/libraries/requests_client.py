"""requests: an adapter with `ssl_context=context`, or nothing with `install()`."""

from common import CA_FILE, HOW, NAME, client_context, https_server, outcome, report, switch
import requests
import requests.adapters

switch()


class ContextAdapter(requests.adapters.HTTPAdapter):
    def init_poolmanager(self, *arguments, **options):
        super().init_poolmanager(*arguments, **options, ssl_context=client_context())


with https_server() as port, requests.Session() as session:
    if HOW == "context":
        session.mount("https://", ContextAdapter())
    address = f"https://{NAME}:{port}/path"
    results = [session.get(address, verify=CA_FILE).text for _ in range(3)]
    results.append(session.post(address, data=b"x" * 100_000, verify=CA_FILE).text)
    results.append(requests.get(address, verify=False).text)
    report(results=results, unknown_authority=outcome(lambda: requests.get(address)))
