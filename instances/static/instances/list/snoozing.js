// What policies found about the instance in the drawer: the section where a finding is snoozed. A finding on the account
// is snoozed by its banner.

import {getMorning} from '../clock.js';
import {make} from '../elements.js';
import {read} from '../service.js';
import {send} from '../session.js';
import {sayLocal} from '../words.js';
import {makeSection} from './facts.js';

// The states of a finding that can be snoozed.
const SNOOZABLE = ['warned', 'due', 'unknown'];
// A snooze by a choice of days ends within this time.
const SHOWN_DAYS = 30;

// `ask` is that of confirm.js.
export function createSnoozing({ask, findings, messages, overview, statusLine, render, refreshAnew}) {
    const busy = new Set(); // ids of findings that are being snoozed
    const list = make('ul', {class: 'findings'});
    const section = makeSection('Policies', list);
    let own = null; // the findings of the instance in the drawer, where the page lists only the first of all
    let reading = {}; // {value}: the overview for which they were read

    function begin() {
        own = null;
        reading = {};
    }

    async function readOwn({id}) {
        const {value} = overview;
        if (reading.value === value) {
            return;
        }
        const mine = {value};
        reading = mine;
        const isCut = value?.openFindings > value?.findings?.length;
        const answer = isCut && await read(`/api/policies/findings?state=open&instance=${encodeURIComponent(id)}`).catch(() => null);
        if (reading === mine) {
            own = answer?.findings ?? null;
            if (own) {
                render();
            }
        }
    }

    function updateSection(one) {
        readOwn(one);
        const found = own ?? findings.list(one.id);
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

    return {section, begin, updateSection, actions: {snooze, 'snooze-until': snoozeUntil}};
}

// Returns the mornings of the next days, each with its date.
function listMornings() {
    return Array.from({length: SHOWN_DAYS}, (_, index) => {
        const morning = getMorning(index + 1);
        return [morning, `${new Date(morning).toLocaleDateString([], {weekday: 'long', day: 'numeric', month: 'long'})}, 09:00`];
    });
}
