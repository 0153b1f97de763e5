// The table's rows: made once, updated only where they differ, put in order without losing the focus.

import {getNow} from '../clock.js';
import {find, make, set, setText} from '../elements.js';
import {findSpent, findStart} from '../order.js';
import {getLabel} from '../statuses.js';
import {capitalize, sayMoment, sayMoney, sayPrice, saySpan} from '../words.js';

const BILLING = {onDemand: 'On-demand', spot: 'Spot', monthly: 'Monthly'};
const NONE = '–';
// Times and what they cost are shown anew after so long.
const STEP_MS = 30_000;

// `getRequest(id)` is the action that was sent and has no answer yet; `parts` are the features that fill their own
// elements of a row.
export function createRows({table, getRequest, parts}) {
    const body = table.tBodies[0];
    const rows = new Map(); // id → its row on this page
    const pattern = makePattern();
    const looks = new WeakMap(); // row → what it shows: {one, request, step}

    function render(shown) {
        const ids = new Set(shown.map(one => one.id));
        for (const id of [...rows.keys()].filter(one => !ids.has(one))) {
            rows.delete(id);
        }
        arrange(shown.map(one => {
            const row = rows.get(one.id) || makeRow(one.id);
            update(row, one);
            return row;
        }));
    }

    function makeRow(id) {
        const row = pattern.cloneNode(true);
        row.dataset.id = id;
        rows.set(id, row);
        return row;
    }

    function update(row, one) {
        const now = getNow();
        const look = {one, request: getRequest(one.id), step: Math.floor((now ?? 0) / STEP_MS)};
        const before = looks.get(row);
        if (!before || Object.keys(look).some(name => look[name] !== before[name])) {
            looks.set(row, look);
            updateCells(row, look, now);
        }
        for (const updatePart of parts) {
            updatePart(row, one);
        }
    }

    function updateCells(row, {one, request}, now) {
        const status = find(row, '.status');
        const error = one.statusError ? one.statusError.message || one.statusError.state : '';
        const start = findStart(one);
        const spent = findSpent(one, now);
        setTitled(row, '.col-name bdi', one.name || one.id);
        setText(status, request ? `${capitalize(request)} requested` : getLabel(one.status));
        set(status, 'title', one.status);
        set(status.dataset, 'group', request ? 'requested' : one.group);
        find(row, '.col-status').toggleAttribute('data-has-error', Boolean(error));
        setTitled(row, '.status-error', error);
        setTitled(row, '.col-gpu bdi', `${one.gpuNum ? `${one.gpuNum} × ` : ''}${one.productName}`);
        setText(find(row, '.col-price'), sayPrice(one));
        find(row, '.col-price').toggleAttribute('data-is-money', !one.prepaid && one.costPerHour !== null);
        setText(find(row, '.col-up'), Number.isNaN(start) || now === null ? NONE : saySpan((now - start) / 1000));
        setText(find(row, '.col-spent'), Number.isNaN(spent) ? NONE : sayMoney(spent));
        updateTime(find(row, 'time'), one.createdAt, now);
        setTitled(row, '.col-owner bdi', one.owner || NONE);
        setTitled(row, '.col-project bdi', one.project || NONE);
        setTitled(row, '.col-region bdi', one.region);
        setText(find(row, '.col-billing'), BILLING[one.billingMode] || one.billingMode || NONE);
    }

    // A cell shows as much as it has room for, its tooltip all.
    function setTitled(row, selector, text) {
        const element = find(row, selector);
        setText(element, text);
        set(element, 'title', text);
    }

    function updateTime(element, time, now) {
        setText(element, !time ? NONE : now === null ? sayMoment(time) : `${saySpan((now - Date.parse(time)) / 1000)} ago`);
        if (element.dateTime !== (time || '')) {
            element.dateTime = time || '';
            element.title = time ? sayMoment(time) : '';
        }
    }

    function arrange(elements) {
        const focused = document.activeElement;
        elements.forEach((element, index) => {
            if (body.children[index] !== element) {
                body.insertBefore(element, body.children[index] || null);
            }
        });
        while (body.children.length > elements.length) {
            body.lastElementChild.remove();
        }
        if (focused && focused !== document.activeElement && focused.isConnected) {
            focused.focus({preventScroll: true});
        }
    }

    function showAge(isOld) {
        table.classList.toggle('is-old', isOld);
    }

    return {render, showAge, get: id => rows.get(id)};
}

// A row without contents. `parts` fill the places of the lock, the buttons and the menu.
function makePattern() {
    const cell = (name, ...children) => make('td', {class: `col-${name}`}, ...children);
    const clip = () => make('bdi', {});
    return make('tr', {},
        make('td', {class: 'col-select', 'data-needs': 'operator'}, make('input', {type: 'checkbox', 'data-do': 'select'})),
        make('th', {scope: 'row', class: 'col-name'},
            make('button', {type: 'button', class: 'name', 'data-do': 'open'}, clip()),
            make('span', {class: 'protection', role: 'img', hidden: ''})),
        cell('status', make('span', {class: 'status'}), make('span', {class: 'finding', hidden: ''}), make('span', {class: 'idle-since', hidden: ''}), ' ', make('bdi', {class: 'status-error'})),
        cell('gpu', clip()),
        cell('price'),
        cell('up'),
        cell('spent'),
        cell('created', make('time', {})),
        cell('owner', clip()),
        cell('project', clip()),
        cell('region', clip()),
        cell('billing'),
        make('td', {class: 'col-actions actions'},
            make('div', {class: 'buttons'}),
            make('button', {type: 'button', class: 'more is-plain', 'data-do': 'menu', 'aria-haspopup': 'menu', 'aria-expanded': 'false'}, '···')));
}
