// What policies found: the mark in an instance's row, and the banners. snoozing.js has the section of the drawer.

import {takeIdle} from '../cards/attention.js';
import {getNow} from '../clock.js';
import {find, set, setText} from '../elements.js';
import {sayLocal, saySpan} from '../words.js';

export function createFindings() {
    let byInstance = new Map(); // id → its open findings
    let idleSince = new Map(); // id → since when an instance without a listed finding is idle

    // Takes the findings as the service lists them; null: unknown, so that the last known stay. `more` has the idle
    // instances whose findings are not listed: id → since when.
    function take({findings: listed, moreIdle: more}) {
        if (listed) {
            byInstance = Map.groupBy(listed, one => one.instanceId);
            idleSince = new Map(Object.entries(more ?? {}));
            takeIdle(listed, idleSince.keys());
        }
    }

    function list(id) {
        return byInstance.get(id) || [];
    }

    function updateRow(row, one) {
        const mark = find(row, '.finding');
        if (!mark) {
            return;
        }
        const [finding] = list(one.id);
        const words = finding ? sayShort(finding) : sayIdle({rule: 'idle', since: idleSince.get(one.id)});
        set(mark, 'hidden', !words);
        setText(mark, words);
        set(mark, 'title', finding ? `${finding.policy}: ${sayLocal(finding.message)}` : '');
        set(mark.dataset, 'state', finding ? finding.state : '');
        // Where there is room for it (status.css).
        const more = find(row, '.idle-since');
        const idle = finding && hasPlan(finding) ? sayIdle(finding) : '';
        set(more, 'hidden', !idle);
        setText(more, idle);
    }

    // Returns the banners on the account's spending, which belong to no row. The server renders them, too (dashboard.py).
    function listNotices() {
        const told = list(null).filter(({mode, state}) => mode !== 'observe' && state !== 'snoozed');
        return told.map(({id, policy, message}) => ({
            text: `Policy ${policy}: ${sayLocal(message)}`,
            label: 'Snooze…',
            attributes: {'data-do': 'snooze-until', 'data-needs': 'operator', 'data-finding': id},
        }));
    }

    return {take, list, updateRow, listNotices};
}

function sayShort(finding) {
    const {state, stopsAt} = finding;
    if (hasPlan(finding)) {
        return `stops ${sayHour(stopsAt)}`;
    }
    if (state === 'snoozed' || state === 'stopping') {
        return state;
    }
    return sayIdle(finding) || (state === 'unknown' ? 'not judged' : 'policy');
}

function hasPlan({mode, state, stopsAt}) {
    return mode === 'stop' && state === 'warned' && stopsAt;
}

function sayIdle({rule, since}) {
    return rule === 'idle' && since && getNow() !== null ? `idle ${saySpan((getNow() - Date.parse(since)) / 1000)}` : '';
}

function sayHour(time) {
    return new Date(time).toLocaleTimeString([], {hour: '2-digit', minute: '2-digit', hour12: false});
}
