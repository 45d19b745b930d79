"""The findings as a page: one file, which needs no network and runs nothing."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from detector.errors import ConfigError
from detector.laboratory.audit import text as audit_text
from detector.laboratory.audit.classes import BETA
from detector.laboratory.audit.pictures import pictures
from detector.laboratory.html import environment

if TYPE_CHECKING:
    from detector.laboratory.audit.outcome import Audit


def require_report() -> None:
    """Raises ConfigError, which names the extra, where what makes the page is absent."""
    for module in ("jinja2", "matplotlib"):
        try:
            importlib.import_module(module)
        except ModuleNotFoundError:
            raise ConfigError(
                f"page: true needs {module}, which is not installed: pip install {module}; "
                "page=false does without"
            ) from None


def page(found: Audit, numbers: dict[str, Any]) -> str:
    """The HTML. Names from files are text there, whatever they hold: everything is escaped."""
    return (
        environment()
        .from_string(TEMPLATE)
        .render(
            numbers=numbers,
            beta=BETA,
            now=numbers["now"],
            then=numbers["advised"],
            pictures=pictures(found, numbers),
            per_one=audit_text.per_one,
            tables={
                "levels": audit_text.cells(audit_text.LEVEL, numbers["levels"]),
                "sizes": audit_text.cells(audit_text.SIZE, numbers["sizes"]),
                "classes": audit_text.cells(audit_text.CLASS, numbers["per_class"]),
                "losses": audit_text.loss_cells(numbers),
            },
            refused=[row for row in numbers["losses"] if not row["given"]],
        )
    )


TEMPLATE = """\
{% macro table(rows) %}
<div class="wide"><table>
<tr>{% for cell in rows[0] %}<th>{{ cell }}</th>{% endfor %}</tr>
{% for row in rows[1:] %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</table></div>
{% endmacro %}
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Audit of {{ numbers.data }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 62rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
.faint { color: #666; } .wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.87rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.2rem 0.7rem; text-align: right; border-bottom: 1px solid #e4e4e4; }
th { border-bottom: 1px solid #888; font-weight: 600; }
th:first-child, td:first-child { text-align: left; }
pre { background: #f4f4f4; padding: 0.7rem; white-space: pre-wrap; overflow-wrap: anywhere; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem; }
.figures div { border: 1px solid #ddd; padding: 0.5rem 0.9rem; border-radius: 4px; }
.figures b { display: block; font-size: 1.3rem; }
dt { font-weight: 600; margin-top: 0.8rem; } dd { margin-left: 0; }
.tag { font-size: 0.8rem; padding: 0.05rem 0.45rem; border-radius: 3px; color: white;
  background: #009e73; } .tag.change { background: #d55e00; }
figure { margin: 1rem 0; } figcaption { color: #555; font-size: 0.87rem; max-width: 44rem; }
img { max-width: 100%; } .pair { display: flex; flex-wrap: wrap; gap: 1.5rem; }
.pair figure { flex: 1 1 24rem; }
</style>
</head>
<body>
<h1>Audit of {{ numbers.data }}</h1>
<p class="faint">Before any training: {{ numbers.images }} images, median
{{ numbers.image_size[1] }} x {{ numbers.image_size[0] }} px as the model sees them,
matcher={{ numbers.matcher }}, loss={{ numbers.loss }}; {{ numbers.seconds }} s.</p>
<div class="figures">
<div><b>{{ now.objects }}</b>objects of {{ numbers.classes | length }} classes</div>
<div><b>{{ per_one(now.background_per_positive) }}</b>background to foreground anchors</div>
<div><b>{{ now.unreached }}</b>objects no anchor reaches</div>
<div><b>{{ now.forced }}</b>objects reached only by force</div>
<div><b>{{ "%.3f" % now.mean_best_iou }}</b>mean IoU with the best anchor</div>
<div><b>{{ "%.2g" % now.prior_any }}</b>share of positive anchors</div>
<div><b>{{ "%.2f" % (100 * now.ignored_share) }} %</b>of the anchors ignored</div>
</div>

<h2>Advice</h2>
{% if numbers.overrides %}
<p>All of it, to be added to the command of a training:</p>
<pre>{{ numbers.paste }}</pre>
<p>Counted again with it: {{ then.unreached }} objects unreached (now {{ now.unreached }}),
{{ then.forced }} only by force (now {{ now.forced }}), mean best IoU
{{ "%.3f" % then.mean_best_iou }} (now {{ "%.3f" % now.mean_best_iou }}),
{{ per_one(then.background_per_positive) }} background to foreground anchors.</p>
{% else %}
<p>Nothing to change.</p>
{% endif %}
<dl>
{% for item in numbers.advice %}
<dt>{{ item.topic }}
{% if item.overrides %}<span class="tag change">change</span>{% else %}<span
class="tag">keep</span>{% endif %}</dt>
<dd>{{ item.reason }}
{% for override in item.overrides %}<br><code>{{ override }}</code>{% endfor %}</dd>
{% endfor %}
</dl>

<h3>By class</h3>
{% for row in numbers.per_class if row.advice %}
<dl>
{% for item in row.advice %}
<dt>{{ row.class }}: {{ item.topic }}</dt>
<dd>{{ item.reason }}
{% for override in item.overrides %}<br><code>{{ override }}</code>{% endfor %}</dd>
{% endfor %}
</dl>
{% else %}
<p>Every class has enough objects and anchors.</p>
{% endfor %}

<h2>Objects and anchors</h2>
<div class="pair">
<figure><img src="{{ pictures.shapes }}" alt="width and height of objects and anchors">
<figcaption>Shapes of objects and of the anchors of all levels. An object far from every mark has
no anchor that fits it.</figcaption></figure>
<figure><img src="{{ pictures.overlaps }}" alt="best overlap of each object">
<figcaption>How well the best anchor fits: left of the dotted line an object has an anchor by force
or none.</figcaption></figure>
</div>
<h3>By size</h3>
<p class="faint">The side is the square root of the area, at the model's size.</p>
{{ table(tables.sizes) }}
<h3>By class</h3>
<p class="faint">Reached: the share of the objects with an anchor that fits. Side: the median, at
the model's size. Weight: what class_weights=effective_number with effective_number_beta={{ beta }}
would give; the mean over the classes is 1.</p>
{{ table(tables.classes) }}
<h3>By level</h3>
{{ table(tables.levels) }}
<figure><img src="{{ pictures.levels }}" alt="anchors of each level">
<figcaption>Anchors by what they are to say, on a logarithmic axis.</figcaption></figure>

<h2>The first step of every loss</h2>
<p>Foretold from the initial bias alone, without a model: what the class loss will be, and how much
of its gradient lies on background. Where nearly all of it does, the first steps teach little but to
say no. Both at the run's prior and at the share of positives in the data. Where
background has more than half of it at the run's prior, the last column has the value of the option
that weighs objects against background with which each has half.</p>
<figure><img src="{{ pictures.losses }}" alt="share of background in the gradient of each loss">
</figure>
{{ table(tables.losses) }}
{% if refused %}
<p>Not with this configuration:</p>
<ul>{% for row in refused %}<li>{{ row.loss }}: {{ row.reason }}</li>{% endfor %}</ul>
{% endif %}
</body>
</html>
"""
