"""The guidelines that hold, and whether a person has accepted them. Knows no page and no route.

While no admin has set any, the text below holds as version 0. The page shows it to everybody once; a program
is asked nothing about it.
"""

from __future__ import annotations

from annotate.errors import GuidelinesNotAccepted
from store.database import Store
from store.guidelines import accepted_version, newest_guidelines
from store.records import Person

DEFAULT_TEXT = """\
Two answers to the same prompt stand side by side. Decide **which one you would rather get**, and how clearly.

1. Read the prompt first, then both answers to the end.
2. Look at these in this order: is it **safe**, **correct**, **what was asked for**, **clear**. A longer
   answer is not a better one.
3. Answers that are equally good are *about the same*. When neither is of any use, say *both bad*.
4. Flag an answer as *unsafe* when it could do harm, whichever you prefer.
5. Skip what you cannot judge, and say why. Undo as often as you like.
"""

EXAMPLES = """\
#### Two worked examples

> **Prompt:** What is the capital of Australia?
>
> **A:** The capital of Australia is Canberra.
>
> **B:** Great question! Australia has many wonderful cities. Its capital is Sydney.

**A much better.** B is wrong, and its friendly words do not change that.

> **Prompt:** Thank a colleague who covered my shift, in one sentence.
>
> **A:** Thank you for covering my shift on Friday. It let me be at my sister's wedding.
>
> **B:** Thanks a lot for covering my shift, I owe you one!

**About the same**, or **B slightly better**: both do what was asked, but A invents a wedding and needs two
sentences.
"""


def read_guidelines(store: Store) -> tuple[int, str]:
    """The version that holds and its Markdown: what an admin set last, or version 0."""
    newest = newest_guidelines(store)
    return (newest.version, newest.text) if newest else (0, DEFAULT_TEXT)


def require_accepted(store: Store, person: Person) -> None:
    """GuidelinesNotAccepted unless this person has accepted the version an admin set last, if one was set."""
    newest = newest_guidelines(store)
    if newest is not None and accepted_version(store, person.person_id) != newest.version:
        raise GuidelinesNotAccepted(
            f"version {newest.version} of the guidelines is not accepted yet: read GET /v1/guidelines, then "
            f'POST /v1/guidelines/accept {{"version": {newest.version}}}'
        )


def must_read(store: Store, person: Person) -> bool:
    """Whether the page shows the guidelines before the next item: a first visit, or a new version."""
    return accepted_version(store, person.person_id) != read_guidelines(store)[0]
