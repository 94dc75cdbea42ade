"""`memtherm check`: what a policy means, in plain sentences, before it is let loose."""

import click


@click.command("check", short_help="Explain a policy, or name all its errors.")
@click.argument("policy_path", metavar="POLICY")
def command(*, policy_path: str) -> None:
    """Explain a policy file, and warn of what in it cannot work or may hurt.

    Exits with 2 and names every error, with its line, if the file is wrong.
    """
    from memtherm.act.choose import rank_actions
    from memtherm.linux.facts import probe_host
    from memtherm.policy.explain import explain_policy, warnings
    from memtherm.policy.file import load_policy

    policy = load_policy(policy_path)
    for sentence in explain_policy(policy):
        print(sentence)
    ways = {way.action: way for way in rank_actions(probe_host())}
    here = [
        f"on this host: {scheme.action}: {ways[scheme.action].reason} ({ways[scheme.action].remedy})"
        for scheme in policy.schemes
        if not ways[scheme.action].usable
    ]
    for warning in [*warnings(policy), *here]:
        print(f"warning: {warning}")
