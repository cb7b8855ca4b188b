"""A broker that lets nobody in without a certificate or a password, and allows nobody anything by itself."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from streamlib.testing.broker import Broker
from tests.security.certificates import Authority

PASSWORD = "Tr0ub4dor-never-shown"
KEY_PASSWORD = "key-never-shown"
BRIEF_MS = 3000
_PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"
_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
_OAUTH = (
    "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required "
    'unsecuredLoginStringClaim_sub="broker";'
)


class Fortress(msgspec.Struct, frozen=True):
    """The broker, and who may do what on it. Everybody is allowed everything who comes in at `admin`."""

    broker: Broker
    authority: Authority
    folder: Path
    admin: AdminClient

    def servers(self, listener: str) -> str:
        return self.broker.servers(listener)

    def add_user(self, name: str) -> None:
        """With `PASSWORD`, for both kinds of SCRAM."""
        for kind in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
            change = UserScramCredentialUpsertion(name, ScramCredentialInfo(kind, 4096), PASSWORD.encode())
            for future in self.admin.alter_user_scram_credentials([change]).values():
                future.result()

    def allow(self, principal: str, *rights: tuple[str, str, str]) -> None:
        """Each right is (resource, name or prefix with a star, operations)."""
        bindings = [
            _binding(principal, resource, name, operation)
            for resource, name, operations in rights
            for operation in operations.split()
        ]
        for future in self.admin.create_acls(bindings).values():
            future.result()

    def sasl(self, mechanism: str, user: str, listener: str = "SECURE") -> dict[str, Any]:
        """Settings of a client that says who it is."""
        return {
            "bootstrap_servers": self.servers(listener),
            "security_protocol": "SASL_SSL",
            "ssl_cafile": str(self.authority.file),
            "sasl_mechanism": mechanism,
            "sasl_username": user,
            "sasl_password": PASSWORD,
        }

    def tls(self, listener: str = "MUTUAL") -> dict[str, Any]:
        """Settings of a client without a certificate."""
        return {
            "bootstrap_servers": self.servers(listener),
            "security_protocol": "SSL",
            "ssl_cafile": str(self.authority.file),
        }


@pytest.fixture(scope="session")
def fortress(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fortress]:
    folder = tmp_path_factory.mktemp("keys")
    authority = Authority(folder, "authority")
    listeners = {"SECURE": "SASL_SSL", "BRIEF": "SASL_SSL", "OPEN": "SASL_PLAINTEXT", "MUTUAL": "SSL", "EXPIRED": "SSL"}
    with Broker.start(listeners=listeners, config=_properties(folder, authority)) as broker:
        admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
        made = Fortress(broker, authority, folder, admin)
        made.add_user("ann")
        made.add_user("bob")
        yield made


def unsecured_token(subject: str, lifetime_s: float = 3600) -> str:
    """A token that Kafka's own validator for tests takes: it is not signed."""
    now = time.time()
    claims = {"sub": subject, "iat": now, "exp": now + lifetime_s}
    return ".".join((_base64(json.dumps({"alg": "none"})), _base64(json.dumps(claims)), ""))


def _base64(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _properties(folder: Path, authority: Authority) -> dict[str, str]:
    expired = authority.sign("expired", age=timedelta(days=3))
    tls = {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(authority.sign("broker")),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(authority.file),
        "listener.name.mutual.ssl.client.auth": "required",
        "listener.name.expired.ssl.keystore.type": "PEM",
        "listener.name.expired.ssl.keystore.location": str(expired),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
    }
    mechanisms = {
        "plain": f'{_PLAIN} user_paula="{PASSWORD}";',
        "scram-sha-256": _SCRAM,
        "scram-sha-512": _SCRAM,
        "oauthbearer": _OAUTH,
    }
    for listener in ("secure", "brief", "open"):
        prefix = f"listener.name.{listener}"
        tls[f"{prefix}.sasl.enabled.mechanisms"] = ",".join(mechanisms).upper()
        tls |= {f"{prefix}.{mechanism}.sasl.jaas.config": text for mechanism, text in mechanisms.items()}
    for mechanism in mechanisms:
        tls[f"listener.name.brief.{mechanism}.connections.max.reauth.ms"] = str(BRIEF_MS)
    return tls


def _binding(principal: str, resource: str, name: str, operation: str) -> AclBinding:
    return AclBinding(
        ResourceType[resource],
        name.removesuffix("*"),
        ResourcePatternType.PREFIXED if name.endswith("*") else ResourcePatternType.LITERAL,
        principal,
        "*",
        AclOperation[operation],
        AclPermissionType.ALLOW,
    )
