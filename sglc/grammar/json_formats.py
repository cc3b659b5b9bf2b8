"""The string formats of JSON schema that are enforced, as regexes.  Knows no schemas.

Each regex describes strings that are surely of the format; where a format also has strings that
hardly anyone writes (quoted local parts of addresses, leap seconds), it leaves those out.
"""

from __future__ import annotations

_YEAR = r"(?:000[1-9]|00[1-9]\d|0[1-9]\d\d|[1-9]\d{3})"  # no year 0: calendars disagree on it
_LEAP = (r"(?:\d\d(?:0[48]|[2468][048]|[13579][26])"
         r"|(?:0[48]|[2468][048]|[13579][26])00)")
_DATE = (rf"(?:{_YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])"
         r"|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)|02-(?:0[1-9]|1\d|2[0-8]))"
         rf"|{_LEAP}-02-29)")
_TIME = (r"(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,9})?"
         r"(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)")
_LABEL = r"[A-Za-z0-9](?:-?[A-Za-z0-9]){0,15}"  # no "--", which stands for other scripts
_HOST = rf"{_LABEL}(?:\.{_LABEL}){{0,7}}"  # at most 8 x 31 characters; 253 are allowed
_BYTE = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_IPV4 = rf"{_BYTE}(?:\.{_BYTE}){{3}}"
_GROUP = "[0-9a-fA-F]{1,4}"
_IPV6 = "|".join([
    rf"(?:{_GROUP}:){{7}}{_GROUP}", rf"(?:{_GROUP}:){{1,7}}:", rf":(?::{_GROUP}){{1,7}}", "::",
    *(rf"(?:{_GROUP}:){{{n}}}(?::{_GROUP}){{1,{7 - n}}}" for n in range(1, 7))])
_LOCAL = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]"
_EMAIL = rf"{_LOCAL}{{1,20}}(?:\.{_LOCAL}{{1,20}}){{0,2}}@(?:{_LABEL}\.){{1,4}}[A-Za-z]{{2,18}}"
_UUID = "[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"
_DURATION = (r"P(?:\d+W|(?:\d+D|\d+M(?:\d+D)?|\d+Y(?:\d+M(?:\d+D)?)?)?"
             r"(?:T(?:\d+S|\d+M(?:\d+S)?|\d+H(?:\d+M(?:\d+S)?)?))|"
             r"(?:\d+D|\d+M(?:\d+D)?|\d+Y(?:\d+M(?:\d+D)?)?))")
_PCHAR = r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})"
_USER = r"(?:(?:[A-Za-z0-9._~!$&'()*+,;=:-]|%[0-9A-Fa-f]{2})*@)?"
_AUTHORITY = rf"//{_USER}(?:{_HOST})(?::\d{{1,5}})?(?:/{_PCHAR}*)*"
_URI = (rf"[A-Za-z][A-Za-z0-9+.-]*:(?:{_AUTHORITY}|/?{_PCHAR}+(?:/{_PCHAR}*)*)"
        rf"(?:\?(?:{_PCHAR}|[/?])*)?(?:#(?:{_PCHAR}|[/?])*)?")
_POINTER = r"(?:/(?:[^~/]|~[01])*)*"

FORMATS: dict[str, str] = {
    "date": _DATE,
    "date-time": rf"(?:{_DATE})T{_TIME}",
    "duration": _DURATION,
    "email": _EMAIL,
    "hostname": _HOST,
    "ipv4": _IPV4,
    "ipv6": _IPV6,
    "json-pointer": _POINTER,
    "time": _TIME,
    "uri": _URI,
    "uuid": _UUID,
}
"""Format -> regex in Python's syntax, to be read with ASCII classes; the whole string fits it."""

ANY_STRING = frozenset({"password", "binary", "path"})
"""Formats that say how a string is used, and exclude none."""

INTEGERS = {"int32": (-(2 ** 31), 2 ** 31 - 1), "int64": (-(2 ** 63), 2 ** 63 - 1)}
"""Formats of OpenAPI that bound an integer."""
