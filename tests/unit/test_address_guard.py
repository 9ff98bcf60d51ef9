"""Whose network an address belongs to, in every way in which it can be written."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.net.address_guard import Zone, is_public, zone_of

ZONES = {
    Zone.PUBLIC: "8.8.8.8 93.184.216.34 2606:4700::1111 [2606:4700::1] 64:ff9b::808:808 ::ffff:8.8.8.8",
    Zone.LOOPBACK: "127.0.0.1 127.1.2.3 ::1 ::ffff:127.0.0.1 64:ff9b::7f00:1 2002:7f00:1::",
    Zone.PRIVATE: "10.0.0.1 172.16.0.1 192.168.0.1 100.64.0.1 198.18.0.1 192.0.2.1 fd00::1 fec0::1"
    " 2002:a00:1:: ::ffff:10.0.0.1 64:ff9b::a00:1 64:ff9b:1::808:808",
    Zone.FORBIDDEN: "169.254.169.254 0.0.0.0 224.0.0.1 240.0.0.1 255.255.255.255 :: fe80::1%eth0 ff02::1"
    " ff0e::1 ::127.0.0.1 ::ffff:0:127.0.0.1 64:ff9b::a9fe:a9fe 2002:a9fe:a9fe:: 4000::1",
}


@pytest.mark.parametrize(("zone", "address"), [(zone, one) for zone in ZONES for one in ZONES[zone].split()])
def test_whose_an_address_is(zone: Zone, address: str) -> None:
    assert zone_of(address) is zone
    assert is_public(address) == (zone is Zone.PUBLIC)


def wrapped(ip: IPv4Address) -> list[str]:
    """`ip` mapped, behind NAT64, as 6to4, and as a Teredo client (RFC 4380: the last 32 bits, inverted)."""
    number, server = int(ip), int(IPv4Address("8.8.8.8"))
    teredo = (0x20010000 << 96) | (server << 64) | (number ^ 0xFFFFFFFF)
    numbers = [(0x64FF9B << 96) | number, (0x2002 << 112) | (number << 80), teredo]
    return [f"::ffff:{ip}", *(str(IPv6Address(one)) for one in numbers)]


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_the_same_in_ipv6(ip: IPv4Address) -> None:
    assert {zone_of(one) for one in wrapped(ip)} == {zone_of(str(ip))}


@pytest.mark.parametrize("text", ["", "example.com", "1.2.3", "::g", "0x7f000001"])
def test_what_is_no_address_raises(text: str) -> None:
    with pytest.raises(ValueError, match=r"IPv4 or IPv6"):
        zone_of(text)
