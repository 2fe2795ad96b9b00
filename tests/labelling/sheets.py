"""A sheet of questions, with words that want to be markup."""

from trimtab.pipelines.labelling import folder, questions
from trimtab.pipelines.labelling.judgements import Judgement
from trimtab.pipelines.labelling.questions import Sheet

EVIL = "</script><script>window.hacked=1</script><img src=x onerror='window.hacked=1'>&amp;\u2028<b>bold</b>"


def sheet(count=4, answers=2, gold=0, **changes):
    """Questions about numbers; of the first `gold` the first answer is known to be right."""
    asked = [
        questions.ask(
            [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"Question {number} {EVIL}"}],
            [[{"role": "assistant", "content": f"answer {number}.{place} {EVIL}"}] for place in range(answers)],
            gold=0 if number < gold else None,
        )
        for number in range(count)
    ]
    about = {"ranked": 1, "raters": 1, "reasons": False, "gold_least": 0.0, **changes}
    return Sheet("demo label", f"Which is better? {EVIL}", questions=asked, **about)


def kept(tmp_path, *args, **changes):
    """The folder of a sheet."""
    return folder.write(sheet(*args, **changes), tmp_path)


def said(question, rater="ann", order=(0,), **more):
    """A judgement that names answers."""
    shown = tuple(range(len(question.answers)))
    return Judgement(question.id, rater, "ranked", tuple(order), **{"shown": shown, "seconds": 2.0, **more})
