// What policies found: the mark in an instance's row, and the section of its drawer, where a finding is snoozed.

import {takeIdle} from '../cards/attention.js';
import {getMorning, getNow} from '../clock.js';
import {find, make, set, setText} from '../elements.js';
import {send} from '../session.js';
import {sayLocal, saySpan} from '../words.js';
import {makeSection} from './facts.js';

// The states of a finding that can be snoozed.
const SNOOZABLE = ['warned', 'due', 'unknown'];
// A snooze by a choice of days ends within this time.
const SHOWN_DAYS = 30;

// `ask` is that of confirm.js.
export function createFindings({ask, messages, statusLine, render, refreshAnew}) {
    let byInstance = new Map(); // id → its open findings
    let idleSince = new Map(); // id → since when an instance without a listed finding is idle
    const busy = new Set(); // ids of findings that are being snoozed
    const list = make('ul', {class: 'findings'});
    const section = makeSection('Policies', list);

    // Takes the findings as the service lists them; null: unknown, so that the last known stay. `more` has the idle
    // instances whose findings are not listed: id → since when.
    function take({findings: listed, moreIdle: more}) {
        if (listed) {
            byInstance = Map.groupBy(listed, one => one.instanceId);
            idleSince = new Map(Object.entries(more ?? {}));
            takeIdle(listed, idleSince.keys());
        }
    }

    function updateRow(row, one) {
        const mark = find(row, '.finding');
        if (!mark) {
            return;
        }
        const [finding] = byInstance.get(one.id) || [];
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

    function updateSection(one) {
        const found = byInstance.get(one.id) || [];
        section.hidden = !found.length;
        const look = JSON.stringify([found, [...busy]]);
        if (list.dataset.shown !== look) {
            list.dataset.shown = look;
            list.replaceChildren(...found.map(makeItem));
        }
    }

    function makeItem(finding) {
        const item = make('li', {}, make('p', {}, make('strong', {}, make('bdi', {}, finding.policy)), ` · ${sayLocal(finding.message)}`));
        if (SNOOZABLE.includes(finding.state)) {
            item.append(makeButtons(finding, [['Snooze 1 h', '1h'], ['4 h', '4h'], ['Until tomorrow 09:00', 'tomorrow'], ['Until…', 'date']]));
        } else if (finding.state === 'snoozed') {
            item.append(makeButtons(finding, [['End the snooze', '']]));
        }
        return item;
    }

    function makeButtons(finding, choices) {
        const buttons = choices.map(([label, value]) => make('button', {
            type: 'button',
            'data-do': value === 'date' ? 'snooze-until' : 'snooze',
            'data-needs': 'operator',
            'data-finding': finding.id,
            'data-for': value,
            ...busy.has(finding.id) ? {'aria-disabled': 'true'} : {},
        }, label));
        return make('div', {class: 'buttons'}, ...buttons);
    }

    function snooze({dataset: {finding, for: wanted}}, holder) {
        const until = wanted === 'tomorrow' ? {until: getMorning()} : {for: wanted};
        return change(Number(finding), wanted && until, holder);
    }

    async function snoozeUntil({dataset: {finding}}, holder) {
        const answer = await ask({
            title: 'Snooze the policy',
            sentences: ['No warning and no stop by this policy until then.', 'Others see your name and the reason.'],
            choice: {label: 'Until', options: listMornings()},
            field: {label: 'Reason (optional)', maxLength: 500, isOptional: true},
            action: 'Snooze',
        });
        if (answer) {
            await change(Number(finding), {until: answer.choice, reason: answer.text}, holder);
        }
    }

    // Snoozes a finding, or ends its snooze without a wish. `holder` is the row or drawer; none: it is on the account.
    async function change(id, wish, holder) {
        if (busy.has(id)) {
            return;
        }
        busy.add(id);
        render();
        const path = `/api/policies/findings/${id}/snooze`;
        const tell = words => (holder ? messages.tell(holder.dataset.id, words) : statusLine.tell(words));
        try {
            const result = wish ? await send('POST', path, wish) : await send('DELETE', path);
            tell(wish ? sayLocal(result.message) : 'The snooze has ended; the warning begins again.');
        } catch (error) {
            holder ? messages.fail(holder.dataset.id, error) : statusLine.tell(error.message, true);
        }
        busy.delete(id);
        await refreshAnew();
        render();
    }

    // Returns the banners on the account's spending, which belong to no row. The server renders them, too (dashboard.py).
    function listNotices() {
        const told = (byInstance.get(null) || []).filter(({mode, state}) => mode !== 'observe' && state !== 'snoozed');
        return told.map(({id, policy, message}) => ({
            text: `Policy ${policy}: ${sayLocal(message)}`,
            label: 'Snooze…',
            attributes: {'data-do': 'snooze-until', 'data-needs': 'operator', 'data-finding': id},
        }));
    }

    return {section, take, updateRow, updateSection, listNotices, actions: {snooze, 'snooze-until': snoozeUntil}};
}

// Returns the mornings of the next days, each with its date.
function listMornings() {
    return Array.from({length: SHOWN_DAYS}, (_, index) => {
        const morning = getMorning(index + 1);
        return [morning, `${new Date(morning).toLocaleDateString([], {weekday: 'long', day: 'numeric', month: 'long'})}, 09:00`];
    });
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
