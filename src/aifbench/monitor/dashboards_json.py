"""From a Dashboard to Grafana's JSON (10.4 and later). Pure.

Every number has its unit, every panel says which metrics it shows and what it needs; an empty answer is shown
as "no data" and never as zero.
"""

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

from aifbench.monitor.dashboards_model import Dashboard, Kind, Needs, Panel, Query, Row, Variable
from aifbench.monitor.grafana_config import LOKI_UID, PROMETHEUS_UID
from aifbench.monitor.promql import metric_names

SCHEMA_VERSION = 39  # of Grafana 10.4
TAG = "aifbench"
_COLUMNS = 24
_LETTERS = "ABCDEFGH"
_NO_DATA, _NO_TRAFFIC = "no data", "no traffic"
_PHASE_COLOUR = "purple"


def grafana_json(dashboard: Dashboard) -> dict[str, Any]:
    """The content of one dashboard's file."""
    uses_loki = any(panel.is_loki for panel in dashboard.panels)
    uses_prometheus = dashboard.has_phases or not all(panel.is_loki for panel in dashboard.panels)
    sources = [("datasource", "Metrics", "prometheus", PROMETHEUS_UID)] if uses_prometheus else []
    sources += [("logs", "Logs", "loki", LOKI_UID)] if uses_loki else []
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.about,
        "tags": [TAG],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,  # one crosshair in all panels
        "refresh": "10s",
        "timezone": "browser",
        "time": {"from": "now-15m", "to": "now"},
        "timepicker": {},
        "links": [_link()],
        "templating": {
            "list": [_source(*source) for source in sources] + [_variable(v) for v in dashboard.variables]
        },
        "annotations": {"list": [_phases()] if dashboard.has_phases else []},
        "panels": list(_panels(dashboard.rows)),
    }


def _link() -> dict[str, Any]:
    return {
        "title": "AI Factory Bench",
        "type": "dashboards",
        "tags": [TAG],
        "asDropdown": True,
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
        "icon": "external link",
        "tooltip": "",
        "url": "",
    }


def _source(name: str, label: str, kind: str, uid: str) -> dict[str, Any]:
    current = {"selected": False, "text": label, "value": uid}
    return {
        "name": name,
        "label": label,
        "type": "datasource",
        "query": kind,
        "current": current,
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "options": [],
        "refresh": 1,
        "regex": "",
        "skipUrlSync": False,
    }


def _variable(variable: Variable) -> dict[str, Any]:
    if not variable.series:
        blank = {"selected": True, "text": "", "value": ""}
        return {
            "name": variable.name,
            "label": variable.label,
            "type": "textbox",
            "query": "",
            "current": blank,
            "options": [blank],
            "hide": 0,
            "skipUrlSync": False,
        }
    query: dict[str, Any] = {
        "refId": variable.name,
        "qryType": 1,
        "query": f"label_values({variable.series}, {variable.name})",
    }
    if variable.is_loki:
        query = {"refId": variable.name, "type": 1, "label": variable.name, "stream": variable.series}
    return {
        "name": variable.name,
        "label": variable.label,
        "type": "query",
        "datasource": _datasource(is_loki=variable.is_loki),
        "definition": query.get("query", f"label_values({variable.series}, {variable.name})"),
        "query": query,
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "includeAll": True,
        # Loki refuses a selector that matches the empty text.
        "allValue": ".+",
        "multi": True,
        "refresh": 2,  # when the time range changes
        "sort": 1,
        "regex": "",
        "options": [],
        "hide": 0,
        "skipUrlSync": False,
    }


def _phases() -> dict[str, Any]:
    """Regions from a series that is there as long as the phase: it needs no right to write to Grafana."""
    return {
        "name": "phases",
        "enable": True,
        "hide": False,
        "iconColor": _PHASE_COLOUR,
        "datasource": _datasource(is_loki=False),
        "expr": 'bench_phase{service=~"$service"}',
        "step": "1s",
        "titleFormat": "{{phase}}: {{stage}}",
        "textFormat": "{{service}}",
        "tagKeys": "service,phase,stage",
        "useValueForTime": False,
    }


def _datasource(*, is_loki: bool) -> dict[str, str]:
    return {"type": "loki", "uid": "${logs}"} if is_loki else {"type": "prometheus", "uid": "${datasource}"}


def _panels(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    ids = count(1)
    y = 0
    for row in rows:
        grid = {"h": 1, "w": _COLUMNS, "x": 0, "y": y}
        yield {
            "id": next(ids),
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "gridPos": grid,
            "panels": [],
        }
        x, y, line = 0, y + 1, 0
        for panel in row.panels:
            if x + panel.width > _COLUMNS:
                x, y, line = 0, y + line, 0
            yield _panel(panel, next(ids), {"h": panel.height, "w": panel.width, "x": x, "y": y})
            x, line = x + panel.width, max(line, panel.height)
        y += line


def _panel(panel: Panel, number: int, grid: dict[str, int]) -> dict[str, Any]:
    return {
        "id": number,
        "type": panel.kind.value,
        "title": panel.title,
        "description": description(panel),
        "datasource": _datasource(is_loki=panel.is_loki),
        "gridPos": grid,
        "targets": [_target(*each, panel) for each in zip(panel.queries, _LETTERS, strict=False)],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _OPTIONS[panel.kind],
        **({"transformations": [_TABLE]} if panel.kind is Kind.TABLE else {}),
    }


def description(panel: Panel) -> str:
    """What a panel shows, of which metrics, and what it needs besides a benchmark."""
    names = sorted({name for query in panel.queries for name in metric_names(query.expr)})
    needs = list(dict.fromkeys(query.needs for query in panel.queries))
    words = [panel.about]
    if names and not panel.is_loki:
        words.append(f"Shows {', '.join(names)}.")
    return " ".join([*words, f"Needs {_and([need.value for need in needs])}."])


def _and(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _target(query: Query, letter: str, panel: Panel) -> dict[str, Any]:
    is_instant = panel.kind in (Kind.STAT, Kind.TABLE)
    target: dict[str, Any] = {
        "refId": letter,
        "datasource": _datasource(is_loki=panel.is_loki),
        "expr": query.expr,
        "legendFormat": query.legend or "__auto",
        "editorMode": "code",
    }
    if query.needs is Needs.LOKI:
        return {**target, "queryType": "range"}
    form = {Kind.TABLE: "table", Kind.HEATMAP: "heatmap"}.get(panel.kind, "time_series")
    return {**target, "format": form, "instant": is_instant, "range": not is_instant}


def _defaults(panel: Panel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.warn_above is not None:
        steps.append({"color": "orange", "value": panel.warn_above})
    nan = {"type": "special", "options": {"match": "nan", "result": {"index": 0, "text": _NO_TRAFFIC}}}
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "noValue": _NO_DATA,
        "mappings": [nan],
        "color": {"mode": "thresholds" if panel.warn_above is not None else "palette-classic"},
        "thresholds": {"mode": "absolute", "steps": steps},
    }
    if panel.is_share:
        defaults |= {"min": 0, "max": 1}
    if panel.kind is Kind.TIME:
        defaults["color"] = {"mode": "palette-classic"}
        defaults["custom"] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 20 if panel.stacked else 0,
            "showPoints": "auto",
            "spanNulls": False,  # a gap is a gap
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
        }
    return defaults


_OPTIONS: dict[Kind, dict[str, Any]] = {
    Kind.TIME: {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    Kind.STAT: {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "value",
        "graphMode": "none",
        "justifyMode": "auto",
        "orientation": "auto",
        "textMode": "auto",
    },
    Kind.TABLE: {"showHeader": True, "cellHeight": "sm"},
    Kind.HEATMAP: {
        "calculate": False,
        "cellGap": 1,
        "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64, "exponent": 0.5, "reverse": False},
        "yAxis": {"axisPlacement": "left", "unit": "s"},
        "tooltip": {"mode": "single", "showColorScale": False, "yHistogram": False},
        "legend": {"show": True},
    },
    Kind.STATES: {
        "mergeValues": True,
        "showValue": "never",
        "alignValue": "left",
        "rowHeight": 0.9,
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False},
        "tooltip": {"mode": "single"},
    },
    Kind.LOGS: {
        "showTime": True,
        "showLabels": False,
        "wrapLogMessage": True,
        "enableLogDetails": True,
        "dedupStrategy": "none",
        "sortOrder": "Descending",
    },
}
_TABLE: dict[str, Any] = {
    "id": "organize",
    "options": {"excludeByName": {"Time": True, "__name__": True, "job": True, "instance": True}},
}
