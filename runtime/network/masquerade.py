"""Masquerading: packets that leave a network for elsewhere carry the host's address.

    table ip rkt-py {
            chain masquerade-default {
                    type nat hook postrouting priority srcnat; policy accept;
                    ip saddr 172.16.28.0/24 oifname != "rktpy0" masquerade
            }
    }

One chain a network, so that a network's part comes and goes in one transaction; the table goes with
the last. It is told to nf_tables directly: the host needs no `nft`, and its iptables stay as they are.
"""

from __future__ import annotations

import ipaddress
import os
from typing import Any

from pyroute2.netlink import (  # type: ignore[import-untyped]
    NLM_F_ACK,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_REQUEST,
)
from pyroute2.netlink.exceptions import NetlinkError  # type: ignore[import-untyped]
from pyroute2.netlink.nfnetlink import (  # type: ignore[import-untyped]
    NFNL_SUBSYS_NFTABLES,
    nfgen_msg,
)
from pyroute2.netlink.nfnetlink.nftsocket import (  # type: ignore[import-untyped]
    NFT_MSG_DELCHAIN,
    NFT_MSG_DELRULE,
    NFT_MSG_DELTABLE,
    NFT_MSG_GETCHAIN,
    NFT_MSG_GETRULE,
    NFT_MSG_NEWCHAIN,
    NFT_MSG_NEWRULE,
    NFT_MSG_NEWTABLE,
    Cmp,
    Meta,
    NFTSocket,
    Regs,
    nft_chain_msg,
    nft_rule_msg,
    nft_table_msg,
)
from pyroute2.nftables.expressions import genex, masq  # type: ignore[import-untyped]

from rkt_py.runtime.errors import NetworkError

TABLE = "rkt-py"

_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_POSTROUTING, _PRIORITY_SRCNAT = 4, 100
_NETWORK_HEADER, _SOURCE_ADDRESS, _ADDRESS_LENGTH = 1, 12, 4
_IFNAMSIZ = 16


def enable(name: str, subnet: ipaddress.IPv4Network, bridge: str) -> None:
    """Masquerade what a network sends to elsewhere than its bridge; nothing happens if that is so."""
    chain = _chain(name)
    with _socket() as socket:
        try:
            # This also tells whether the kernel has nf_tables at all: to a whole transaction it would
            # answer such a thing once, to the message that opens it, and pyroute2 wait for the rest.
            if _rules(socket, chain):
                return
            _transaction(
                socket,
                _message(nft_table_msg, NFT_MSG_NEWTABLE, name=TABLE),
                _message(nft_chain_msg, NFT_MSG_NEWCHAIN, table=TABLE, name=chain, type="nat", hook=_hook()),
                _message(
                    nft_rule_msg, NFT_MSG_NEWRULE,
                    table=TABLE, chain=chain, expressions=_expressions(subnet, bridge),
                ),
            )  # fmt: skip
        except NetlinkError as error:
            raise _refused(f"masquerade {subnet}", error) from None


def disable(name: str) -> None:
    """Take a network's masquerading away, and the table if it was the last."""
    chain = _chain(name)
    with _socket() as socket:
        try:
            chains = _chains(socket)
            if chains == [chain]:
                _transaction(socket, _message(nft_table_msg, NFT_MSG_DELTABLE, name=TABLE))
            elif chain in chains:
                _transaction(
                    socket,
                    _message(nft_rule_msg, NFT_MSG_DELRULE, table=TABLE, chain=chain),
                    _message(nft_chain_msg, NFT_MSG_DELCHAIN, table=TABLE, name=chain),
                )
        except NetlinkError as error:
            raise NetworkError(
                f"cannot remove the nf_tables chain {chain}: {os.strerror(error.code)}"
            ) from None


def _refused(what: str, error: Any) -> NetworkError:
    return NetworkError(f"nf_tables cannot {what}: {os.strerror(error.code)}")


def _chain(name: str) -> str:
    return f"masquerade-{name}"


def _hook() -> dict[str, Any]:
    return _attributes("NFTA_HOOK_", hooknum=_POSTROUTING, priority=_PRIORITY_SRCNAT)


def _expressions(subnet: ipaddress.IPv4Network, bridge: str) -> list[Any]:
    """Return: ip saddr SUBNET oifname != BRIDGE masquerade."""
    register = Regs.NFT_REG_1
    return [
        genex(
            "payload",
            {"dreg": register, "base": _NETWORK_HEADER, "offset": _SOURCE_ADDRESS, "len": _ADDRESS_LENGTH},
        ),
        genex(
            "bitwise",
            {
                "sreg": register,
                "dreg": register,
                "len": _ADDRESS_LENGTH,
                "mask": _data(subnet.netmask.packed),
                "xor": _data(bytes(_ADDRESS_LENGTH)),
            },
        ),
        genex("cmp", {"sreg": register, "op": Cmp.NFT_CMP_EQ, "data": _data(subnet.network_address.packed)}),
        genex("meta", {"key": Meta.NFT_META_OIFNAME, "dreg": register}),
        genex(
            "cmp",
            {"sreg": register, "op": Cmp.NFT_CMP_NEQ, "data": _data(bridge.encode().ljust(_IFNAMSIZ, b"\0"))},
        ),
        *masq(),
    ]


def _data(value: bytes) -> dict[str, Any]:
    return _attributes("NFTA_DATA_", value=value)


def _attributes(prefix: str, **values: object) -> dict[str, Any]:
    return {"attrs": [(prefix + name.upper(), value) for name, value in values.items()]}


def _socket() -> Any:
    return NFTSocket()


def _message(kind: Any, number: int, **attributes: object) -> Any:
    message = kind()
    message["attrs"] = [(kind.name2nla(name), value) for name, value in attributes.items()]
    message["nfgen_family"] = 2
    message["header"]["type"] = NFNL_SUBSYS_NFTABLES << 8 | number
    message["header"]["flags"] = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_APPEND
    return message


def _transaction(socket: Any, *messages: Any) -> None:
    """Send messages of which either all take effect or, with an error, none."""
    socket.nlm_request_batch([_bracket(_BATCH_BEGIN), *messages, _bracket(_BATCH_END)])


def _bracket(number: int) -> Any:
    message: Any = nfgen_msg()
    message["res_id"] = NFNL_SUBSYS_NFTABLES
    message["header"]["type"] = number
    message["header"]["flags"] = NLM_F_REQUEST
    return message


def _rules(socket: Any, chain: str) -> list[Any]:
    # The kernel picks the rules of one chain: a host may have thousands.
    return _dump(socket, _message(nft_rule_msg, NFT_MSG_GETRULE, table=TABLE, chain=chain), NFT_MSG_GETRULE)


def _chains(socket: Any) -> list[str]:
    dump = _dump(socket, _message(nft_chain_msg, NFT_MSG_GETCHAIN, table=TABLE), NFT_MSG_GETCHAIN)
    return [m.get_attr("NFTA_CHAIN_NAME") for m in dump if m.get_attr("NFTA_CHAIN_TABLE") == TABLE]


def _dump(socket: Any, message: Any, number: int) -> list[Any]:
    return list(socket.request_get(message, number, NLM_F_REQUEST | NLM_F_DUMP))
