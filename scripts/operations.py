#!/usr/bin/env python3
"""Writes crates/control/src/operations.txt: every operation of the published contract, so that one that is not built
answers 501 by name. Run it after spec/api.json changes: scripts/operations.py"""

import json
import pathlib

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Operations that newer published clients have and spec/api.json lacks.
NEWER = [
    ("GET", "/organizations/sandbox-identity/by-sandbox-auth-token/{authToken}", "getSandboxIdentityBySandboxAuthToken"),
    ("GET", "/organizations/{organizationId}/gpu-capacity", "getGpuCapacity"),
    ("GET", "/organizations/{organizationId}/identity-providers/workos-sso-connections", "listWorkosSsoConnections"),
    ("POST", "/organizations/{organizationId}/identity-providers/workos-admin-portal-link", "createWorkosAdminPortalLink"),
    ("PATCH", "/organizations/{organizationId}/default-queue-timeout", "updateOrganizationDefaultQueueTimeout"),
    ("POST", "/users/me/logins", "recordLogin"),
    ("POST", "/users/privacy-policies/accept", "acceptPrivacyPolicies"),
]

METHODS = ("get", "post", "put", "patch", "delete")


def main() -> None:
    spec = json.loads((ROOT / "spec/api.json").read_text())
    lines = [
        f"{method.upper()} {path} {operation['operationId']}"
        for path, item in spec["paths"].items()
        for method, operation in item.items()
        if method in METHODS
    ]
    lines += [" ".join(newer) for newer in NEWER]
    text = "# Made by scripts/operations.py from spec/api.json; do not edit.\n" + "\n".join(sorted(lines)) + "\n"
    (ROOT / "crates/control/src/operations.txt").write_text(text)


if __name__ == "__main__":
    main()
