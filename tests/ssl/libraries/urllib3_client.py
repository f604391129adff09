"""urllib3: `PoolManager(ssl_context=…)`, or nothing with `install()`."""

from common import CA_FILE, HOW, NAME, WRONG_NAME, client_context, https_server, outcome, report, switch
import urllib3

switch()

options = {"ca_certs": CA_FILE} if HOW in ("install", "late") else {"ssl_context": client_context()}
with https_server() as port, urllib3.PoolManager(**options) as pool:
    results = [pool.request("GET", f"https://{NAME}:{port}/{number}").data.decode() for number in range(3)]
    results.append(len(pool.request("POST", f"https://{NAME}:{port}/", body=b"x" * 300_000).data))
    report(results=results, wrong_name=outcome(lambda: pool.request("GET", f"https://{WRONG_NAME}:{port}/", retries=False)))
