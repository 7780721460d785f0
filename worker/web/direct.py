"""Tells a direct request of this machine from one of another machine, or one that a proxy passes on.

Without a token nothing else keeps strangers out, so it refuses in doubt. It cannot tell a proxy that hides
completely: one on this machine that sends no header of its own and names this machine as the host.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import SplitResult, urlsplit

from starlette.requests import Request

_LOCAL_NAME = "localhost"

# What proxies, tunnels and content networks add to the requests that they pass on. Most of it tells of the visitor's
# address, or of the way that the request took; the rest has the name of whoever added it.
_ADDED = frozenset(
    {
        "cdn-loop",
        "max-forwards",
        "remote-addr",
        "via",
        "wl-proxy",
        "x-host",
        "x-remote-addr",
        "x-scheme",
        "x-script-name",
    }
)
_ADDED_BEGIN = (
    *("akamai-", "cf-", "fastly-", "fly-", "incap-", "ngrok-", "surrogate-", "tailscale-", "x-akamai-", "x-amz-"),
    *(
        "x-amzn-",
        "x-appengine-",
        "x-arr-",
        "x-azure-",
        "x-cloud-trace",
        "x-envoy-",
        "x-google-",
        "x-nf-",
        "x-original-",
    ),
    *("x-rewrite-", "x-sucuri-", "x-varnish", "x-vercel-"),
)
_ADDED_END = ("-ip", "-via", "clientip")
_ADDED_WITHIN = "forward"


def doubt_about(request: Request) -> str | None:
    """The reason why a request may not come directly from a program on this machine, or None."""
    address = request.client.host if request.client is not None else "nobody knows where"
    if not is_loopback(address):
        return f"it comes from {address}"
    added = next(filter(_is_added, request.headers), None)
    if added is not None:
        return f"a proxy passed it on, which added the header {added}"
    if request.scope.get("http_version") == "1.0":
        # Some proxies add nothing, and speak it to what is behind them; browsers and other programs do not.
        return "a proxy passed it on, which speaks HTTP/1.0"
    if _was_renamed(request):
        return "a proxy passed it on, which changed the name of the host"
    return None


def is_local_name(name: str) -> bool:
    """Whether the name of a host is this machine's, for itself."""
    return name == _LOCAL_NAME or is_loopback(name)


def is_loopback(name: str) -> bool:
    """Whether the text is an address that only this machine reaches."""
    address = address_of(name)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address is not None and address.is_loopback


def address_of(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that the text is, or None."""
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def split(url: str) -> SplitResult:
    """The URL's parts; all empty if it is not a URL."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


def _is_added(header: str) -> bool:
    """Whether a proxy, and no program that asks for itself, sends a header of this name."""
    name = header.replace("_", "-")
    return name in _ADDED or name.startswith(_ADDED_BEGIN) or name.endswith(_ADDED_END) or _ADDED_WITHIN in name


def _was_renamed(request: Request) -> bool:
    """Whether a browser says that it asks the host of its page, and that is another than the one that is asked here."""
    page = split(request.headers.get("referer", "")).netloc.lower()
    is_own = request.headers.get("sec-fetch-site") == "same-origin"
    return is_own and page not in ("", request.headers.get("host", "").lower())
