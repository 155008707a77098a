"""One HTTP request to a server that may hang, drip or redirect anywhere: an answer in time, or what was wrong."""

import base64
import binascii
import email.utils
import http.client
import io
import re
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any, NoReturn

SLOWEST = 1024  # bytes a second; a server that drips less is as good as one that hangs
LONGEST_WAIT = 600.0  # seconds that a server may ask to wait
REDIRECTS = 5
AGAIN = "run the same command again, it goes on where it stopped; if that does not help, take another --mirror"


class Failed(Exception):
    """One attempt failed.

    Args:
        told: what happened.
        remedy: what a person can do about it.
        again: another attempt may succeed.
        wait: seconds that the server asked to wait before it.
    """

    def __init__(self, told: str, remedy: str = AGAIN, *, again: bool = False, wait: float = 0.0) -> None:
        super().__init__(told)
        self.remedy, self.again, self.wait = remedy, again, wait


def request(
    method: str, url: str, timeout: float, headers: Mapping[str, str] | None = None
) -> http.client.HTTPResponse:
    """The server's answer, whatever its status, after at most 5 redirections.

    Args:
        method: ``GET`` or ``HEAD``.
        url: http or https; proxies are taken from the environment (``http_proxy``, ``https_proxy``).
        timeout: seconds without a byte, or at less than 1 kB a second, after which reading fails.
        headers: to send.
    Raises:
        Failed: no connection, no answer in time, or a redirection to anything but http and https (or from https to
            http).
    """
    for _ in range(1 + REDIRECTS):
        try:
            asked = urllib.request.Request(url, headers=dict(headers or {}), method=method)
            answer: http.client.HTTPResponse = _OPENER.open(asked, timeout=timeout)
        except ValueError as error:
            raise Failed(f"no address of a file ({error})", "check --server") from None
        except (OSError, http.client.HTTPException) as error:
            raise Failed(f"no answer ({told(error)})", again=True) from None
        if answer.status not in (301, 302, 303, 307, 308):
            return answer
        answer.close()
        url = redirected(url, answer.headers.get("Location", ""))
    raise Failed(f"redirected more than {REDIRECTS} times, last to {url[:200]!r}", "check the address, or the proxy")


def redirected(url: str, location: str) -> str:
    """The address that an answer from ``url`` sends to.

    Raises:
        Failed: it is not http or https, or it is http from https.
    """
    try:
        target = urllib.parse.urljoin(url, location)
        scheme = urllib.parse.urlsplit(target).scheme
    except ValueError:
        target, scheme = location, ""
    downgraded = scheme == "http" and urllib.parse.urlsplit(url).scheme == "https"
    if scheme not in ("http", "https") or downgraded:
        raise Failed(f"redirected to {target[:200]!r}, which is not followed", "check the address, or the proxy")
    return urllib.parse.quote(target, safe="!#$%&'()*+,/:;=?@[]~")


def read(answer: http.client.HTTPResponse, count: int) -> bytes:
    """Up to ``count`` bytes of an answer as soon as there are any; none at the end, or where it was cut.

    Raises:
        Failed: the connection broke or became too slow.
    """
    try:
        return answer.read1(count)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Failed(f"cut ({told(error)})", again=True) from None


def refuse(answer: http.client.HTTPResponse) -> NoReturn:
    """For an answer that is not the file.

    Raises:
        Failed: for good, or to be tried again (408, 429, 5xx) when the server says.
    """
    said = f"HTTP {answer.status} {http.client.responses.get(answer.status, '')}".strip()
    if answer.status not in (408, 429) and answer.status < 500:
        raise Failed(said, "the server does not give this file: check the address, or take another --mirror")
    wait = retry_after(answer.headers.get("Retry-After", ""))
    if wait > LONGEST_WAIT:
        raise Failed(f"{said}, to come back in {wait:.0f} s", "run the same command again then")
    raise Failed(said, again=True, wait=wait)


def retry_after(text: str) -> float:
    """Seconds that the header ``Retry-After`` asks for, as a number or as a date; 0 if it is neither."""
    if re.fullmatch(r"\d{1,9}", text.strip()):
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


def stated_size(answer: http.client.HTTPResponse) -> int | None:
    """The length that an answer to ``HEAD`` states, in bytes."""
    stated = answer.headers.get("Content-Length", "")
    return int(stated) if re.fullmatch(r"\d{1,18}", stated) else None


def stated_md5(answer: http.client.HTTPResponse) -> str | None:
    """The MD5 that Google's storage states in ``x-goog-hash`` for what was uploaded in one piece, as hex digits."""
    stated = re.search(r"md5=([A-Za-z0-9+/]{22}==)", ",".join(answer.headers.get_all("x-goog-hash", [])))
    try:
        return base64.b64decode(stated[1], validate=True).hex() if stated else None
    except binascii.Error:
        return None


def validator(answer: http.client.HTTPResponse) -> str | None:
    """The word for this version of a file that ``If-Range`` takes: a strong ETag or the date."""
    tag = answer.headers.get("ETag", "")
    return tag if tag.startswith('"') else answer.headers.get("Last-Modified")


def range_start(answer: http.client.HTTPResponse) -> int | None:
    """The first byte that an answer with status 206 says it holds."""
    start = re.match(r"bytes (\d{1,18})-", answer.headers.get("Content-Range", ""))
    return int(start[1]) if start else None


def told(error: BaseException) -> str:
    """An error in words, which some have none of."""
    return str(getattr(error, "reason", None) or error) or type(error).__name__


class _Paced(io.RawIOBase):
    """A connection's bytes, headers and all, that must come at a minimum speed; a timeout alone is reset by each."""

    def __init__(self, raw: io.RawIOBase, seconds: float) -> None:
        self._raw, self._seconds = raw, seconds
        self._since, self._bytes = time.monotonic(), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        count = self._raw.readinto(buffer)
        self._bytes += count or 0
        now = time.monotonic()
        if now - self._since > self._seconds:
            if self._bytes < SLOWEST * self._seconds:
                raise TimeoutError(f"{self._bytes} bytes in {now - self._since:.0f} s")
            self._since, self._bytes = now, 0
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: Any, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp = io.BufferedReader(_Paced(self.fp.detach(), sock.gettimeout()))


class _Plain(http.client.HTTPConnection):
    response_class = _Response


class _Secure(http.client.HTTPSConnection):
    response_class = _Response


class _Handler(urllib.request.HTTPSHandler):
    http_request = urllib.request.AbstractHTTPHandler.do_request_

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Plain, request)

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Secure, request)


def _opener() -> urllib.request.OpenerDirector:
    """Proxies as the environment names them; no files, no FTP, and redirections and statuses left to the caller."""
    opener = urllib.request.OpenerDirector()
    for handler in (urllib.request.ProxyHandler(), urllib.request.UnknownHandler(), _Handler()):
        opener.add_handler(handler)
    return opener


_OPENER = _opener()
