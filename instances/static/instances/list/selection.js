// The selection: the boxes of the rows and of the heading, and the bar with its counts and buttons.

import {find, set, setDisabled, setText} from '../elements.js';
import {capitalize, PAST} from '../words.js';
import {removeUnknown} from './inventory.js';

// `canRequest(kind, one)` says whether an operation of that kind can include the instance; `preview(kind, ids, number)`
// opens the dialog.
export function createSelection({inventory, canRequest, preview, render}) {
    const bar = document.getElementById('selection');
    const allBox = document.getElementById('select-all');
    const selected = new Set(); // ids
    let matching = []; // the ids that match the filter, in the order shown, on all pages
    let lastSelected = ''; // where a range by Shift begins

    function updateRow(row, one) {
        const box = find(row, '.select input');
        set(box, 'checked', selected.has(one.id));
        set(box, 'ariaLabel', `Select ${one.name || one.id}`);
    }

    function renderBar(found, shown) {
        matching = found.map(one => one.id);
        setText(document.getElementById('selection-words'), describe(new Set(shown.map(one => one.id))));
        bar.classList.toggle('is-shown', selected.size > 0);
        set(document.getElementById('selection-buttons'), 'hidden', !selected.size);
        set(document.getElementById('selection-owner'), 'hidden', !selected.size);
        for (const button of bar.querySelectorAll('[data-kind]')) {
            const {kind} = button.dataset;
            const possible = countPossible(kind);
            setText(button, `${capitalize(kind)} ${possible}`);
            set(button, 'title', possible ? '' : `None of the selected instances can be ${PAST[kind]} now.`);
            setDisabled(button, !possible);
        }
        const number = matching.filter(id => selected.has(id)).length;
        set(allBox, 'hidden', false);
        set(allBox, 'checked', number > 0 && number === matching.length);
        set(allBox, 'indeterminate', number > 0 && number < matching.length);
        set(allBox, 'ariaLabel', `Select all ${matching.length} that match`);
    }

    function describe(onPage) {
        const matches = new Set(matching);
        const chosen = listSelected();
        const hidden = chosen.filter(one => !matches.has(one.id)).length;
        const elsewhere = chosen.filter(one => matches.has(one.id) && !onPage.has(one.id)).length;
        return !selected.size ? '' : [
            `${selected.size} selected`,
            hidden && `${hidden} of them hidden by the filter`,
            elsewhere && `${elsewhere} on other pages`,
        ].filter(Boolean).join(', ');
    }

    function listSelected() {
        return inventory.instances.filter(one => selected.has(one.id));
    }

    function countPossible(kind) {
        return listSelected().filter(one => canRequest(kind, one)).length;
    }

    function select(ids, isSelected) {
        for (const id of ids) {
            selected[isSelected ? 'add' : 'delete'](id);
        }
        render();
    }

    function selectOne(box, row, event) {
        const {id} = row.dataset;
        const [from, to] = [matching.indexOf(lastSelected), matching.indexOf(id)].sort((a, b) => a - b);
        lastSelected = id;
        select(event.shiftKey && from >= 0 ? matching.slice(from, to + 1) : [id], box.checked);
    }

    function clear() {
        selected.clear();
        render();
        allBox.focus();
    }

    return {
        updateRow,
        renderBar,
        listIds: () => [...selected],
        forgetUnknown: isKnown => removeUnknown(selected, isKnown),
        actions: {
            select: selectOne,
            'select-all': box => select(matching, box.checked),
            'clear-selection': clear,
            'act-on-selected': ({dataset: {kind}}) => preview(kind, [...selected], countPossible(kind)),
        },
    };
}
