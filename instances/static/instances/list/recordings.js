// What the service knows of the instance in the drawer beyond its row: all fields, its history, and what it cost in the
// last 30 days.

import {make, setText} from '../elements.js';
import {locate} from '../root.js';
import {read} from '../service.js';
import {sayAge, sayMoment} from '../words.js';

// Costs grow while nothing else changes.
const READ_AGAIN_MS = 25000;
const NOTHING = {cost: 0, gpuHours: 0, gapSeconds: 0, inferredSeconds: 0, unpricedSeconds: 0};

export function createRecordings({render}) {
    const list = make('ol', {});
    const words = make('p', {class: 'quiet', role: 'status'});
    const link = make('a', {}, 'All activity of this instance');
    const section = make('section', {role: 'group', 'aria-label': 'History', class: 'history'}, make('h3', {}, 'History'), words, list, link);
    let id = '';
    let mark = null; // what the recordings were read for
    let readAt = 0;
    let facts = {fields: null, error: ''};
    let costs = {month: null, error: ''};
    let events = null; // of the history; null until it was read

    function begin(newId) {
        id = newId;
        mark = null;
        events = null;
        facts = {fields: null, error: ''};
        costs = {month: null, error: ''};
        list.replaceChildren();
        list.dataset.shown = '';
        link.href = locate(`/activity/?instance=${encodeURIComponent(id)}`);
    }

    // Reads anew when the instance or its protection (`newMark`) has changed, and after some time.
    function update(one, isListed, newMark) {
        if (newMark !== mark || performance.now() - readAt > READ_AGAIN_MS) {
            mark = newMark;
            readAnew(one, isListed);
        }
        show();
        // Of an unknown instance there is nothing to say.
        section.hidden = !one && !events?.length;
    }

    function readAnew(one, isListed) {
        const path = encodeURIComponent(id);
        readAt = performance.now();
        fetchAndShow(`/api/instances/${path}/history`, takeEvents);
        if (one) {
            fetchAndShow(`/api/costs/instances?instance=${path}`, takeCosts);
        }
        if (isListed) {
            fetchAndShow(`/api/instances/${path}`, takeFacts);
        }
    }

    // Drops the answer when another instance is shown by then.
    async function fetchAndShow(path, take) {
        const wanted = id;
        let answer = null;
        let error = '';
        try {
            answer = await read(path);
        } catch (problem) {
            error = problem.message;
        }
        if (wanted === id) {
            take(answer, error);
            render();
        }
    }

    function takeFacts(answer, error) {
        facts = {fields: answer || facts.fields, error};
    }

    function takeCosts(answer, error) {
        costs = {month: answer ? {...answer.instances[0] || NOTHING, since: answer.since} : costs.month, error};
    }

    function takeEvents(answer, error) {
        events = answer ? answer.events : events;
        setText(words, error || (events.length ? '' : 'Nothing is recorded yet.'));
        words.hidden = !words.textContent;
        words.classList.toggle('is-error', Boolean(error));
    }

    function show() {
        const look = JSON.stringify(events);
        if (list.dataset.shown !== look) {
            list.dataset.shown = look;
            list.replaceChildren(...(events || []).map(makeItem));
        }
        for (const time of list.querySelectorAll('time')) {
            setText(time, sayAge(time.dateTime));
        }
    }

    function makeItem({at, message, actor, reason, operationId}) {
        const item = make('li', {},
            make('time', {datetime: at, title: sayMoment(at)}),
            operationId ? make('a', {href: `/admin/instances/operation/${operationId}/change/`}, message) : make('span', {}, message));
        const more = [actor && `by ${actor}`, reason && `Reason: ${reason}`].filter(Boolean);
        if (more.length) {
            item.append(make('span', {class: 'quiet'}, make('bdi', {}, more.join('. '))));
        }
        return item;
    }

    return {
        section,
        begin,
        update,
        get facts() {
            return facts;
        },
        get costs() {
            return costs;
        },
    };
}
