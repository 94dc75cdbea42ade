"""`memtherm check`: what a policy means, in plain sentences, before it is let loose."""

import click


@click.command("check", short_help="Explain a policy, or name all its errors.")
@click.argument("policy_path", metavar="[POLICY]", required=False)
@click.option("--schema", is_flag=True, help="Print the JSON schema of policy files instead.")
def command(*, policy_path: str | None, schema: bool) -> None:
    """Explain a policy file, and warn of what in it cannot work or may hurt.

    The file is TOML, damo's JSON, or lines of seven values.  Exits with 2 and names every error,
    with its line, if it is wrong; with 0 if there are warnings only.

    \b
    memtherm check policy.toml
    memtherm check --schema > policy.schema.json      # for editors
    """
    import json

    from memtherm.errors import InvalidInput
    from memtherm.policy.explain import explain_policy
    from memtherm.policy.file import load_told
    from memtherm.policy.reference import json_schema
    from memtherm.policy.warnings import warnings
    from memtherm.session.host_check import host_warnings
    from memtherm.session.placement import placements

    if schema:
        print(json.dumps(json_schema(), indent=2))
        return
    if policy_path is None:
        raise InvalidInput("no POLICY was given", hint="name a file, or ask for the --schema; memtherm check --help")
    policy, left_out = load_told(policy_path)
    for sentence in explain_policy(policy):
        print(sentence)
    for sentence in placements(policy):
        print(sentence)
    for sentence in left_out:
        print(f"note: {sentence}")
    for warning in [*warnings(policy), *host_warnings(policy)]:
        print(f"warning: {warning}")
