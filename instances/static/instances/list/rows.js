// The table's rows: made from a template, updated only where they differ, put in order without losing the focus.

import {clone, find, set, setText} from '../elements.js';
import {getLabel} from '../statuses.js';
import {capitalize, sayAge, sayInstanceCost, sayMoment} from '../words.js';

// `getRequest(id)` is the action that was sent and has no answer yet; `parts` are the features that fill their own
// elements of a row.
export function createRows({table, getRequest, parts}) {
    const body = table.tBodies[0];
    const rows = new Map(); // id → its row on this page

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
        const row = clone('row-template');
        row.dataset.id = id;
        rows.set(id, row);
        return row;
    }

    function update(row, one) {
        const request = getRequest(one.id);
        const status = find(row, '.status');
        setText(find(row, 'bdi'), one.name || one.id);
        setText(status, request ? `${capitalize(request)} requested` : getLabel(one.status));
        set(status, 'title', one.status);
        set(status.dataset, 'group', request ? 'requested' : one.group);
        setText(find(row, '.status-error'), one.statusError ? one.statusError.message || one.statusError.state : '');
        setText(find(row, '.region'), one.region);
        setText(find(row, '.gpu'), `${one.gpuNum ? `${one.gpuNum} × ` : ''}${one.productName}`);
        setText(find(row, '.cost'), sayInstanceCost(one));
        updateTime(find(row, '.created'), one.createdAt);
        for (const updatePart of parts) {
            updatePart(row, one);
        }
    }

    function updateTime(element, time) {
        setText(element, time ? sayAge(time) : '–');
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
