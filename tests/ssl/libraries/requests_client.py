"""requests: `install()`; no context can be handed over but by an adapter."""

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
    if HOW != "context":
        results.append(requests.get(address, verify=False).text)
        results.append(outcome(lambda: requests.get(address)))
    results = results[:4] if HOW == "context" else results
    report(results=results[:4], unverified=results[4:] or None)
