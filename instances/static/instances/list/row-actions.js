// Start, stop and restart of one instance: its buttons, the second press, and the request.

import {getNow} from '../clock.js';
import {clone, find, set, setText} from '../elements.js';
import {send} from '../session.js';
import {getLabel, isMoving} from '../statuses.js';
import {capitalize, sayClock, sayCost} from '../words.js';
import {removeUnknown} from './inventory.js';

export function createRowActions({messages, protection, getRow, refresh, render}) {
    const requests = new Map(); // id → the action that was sent and has no answer yet
    const followed = new Set(); // ids of instances that an action of this page has set moving
    let question = null; // {id, action} of the stop or restart that needs a second press

    function update(row, one) {
        const actions = one.actions.filter(action => protection.permits(action, one.id));
        const name = one.name || one.id;
        if (question?.id === one.id && !actions.includes(question.action)) {
            question = null;
        }
        updateQuestion(row, one, name);
        updateButtons(row, one.id, name, actions);
        if (followed.has(one.id) && !requests.has(one.id) && !isMoving(one)) {
            followed.delete(one.id);
            messages.tell(one.id, `${getLabel(one.status)}${getNow() ? ` at ${sayClock(getNow())}` : ''}.`);
        }
    }

    function updateQuestion(row, one, name) {
        const isOpen = question?.id === one.id;
        const isRestart = isOpen && question.action === 'restart';
        const confirm = find(row, '.confirm');
        set(confirm, 'hidden', !isOpen);
        set(find(row, '.buttons'), 'hidden', isOpen);
        setText(find(confirm, 'span'), isRestart
            ? `Restart ${name}? This ends all jobs on it.`
            : `Stop ${name}? Data on local disks may be lost; Novita keeps it for up to 7 days. `
                + `It may not start again: the GPU can be taken meanwhile.${saySavings(one)}`);
        setText(find(confirm, '[data-do=confirm-now]'), isRestart ? 'Restart' : 'Stop');
        set(confirm, 'ariaLabel', isRestart ? `Restart ${name}?` : `Stop ${name}?`);
    }

    function updateButtons(row, id, name, actions) {
        const buttons = find(row, '.buttons');
        const isBusy = requests.has(id);
        const look = `${actions} ${isBusy} ${name}`;
        if (buttons.dataset.shown === look) {
            return;
        }
        buttons.dataset.shown = look;
        const focusedAction = buttons.contains(document.activeElement) ? document.activeElement.dataset.action : '';
        buttons.replaceChildren(...actions.map(action => {
            const button = clone('button-template');
            button.dataset.do = action === 'start' ? 'act' : 'confirm';
            button.dataset.action = action;
            button.textContent = capitalize(action);
            button.setAttribute('aria-label', `${button.textContent} ${name}`);
            if (isBusy) {
                button.setAttribute('aria-disabled', 'true');
            }
            return button;
        }));
        if (focusedAction) {
            focusButton(row, focusedAction);
        }
    }

    function focusButton(row, action) {
        (row.querySelector(`[data-action="${action}"]`) || row.querySelector('.name')).focus({preventScroll: true});
    }

    async function act(action, id) {
        if (requests.has(id)) {
            return;
        }
        question = null;
        requests.set(id, action);
        messages.tell(id, `Sending the ${action} request…`);
        render();
        try {
            const result = await send('POST', `/api/instances/${encodeURIComponent(id)}/${action}`);
            messages.tell(id, `${result.message}.`);
            followed.add(id);
        } catch (error) {
            messages.fail(id, error);
        }
        await refresh();
        requests.delete(id);
        // A refresh that was under way may have read the list before the action.
        await refresh();
    }

    function openQuestion(action, id) {
        question = {id, action};
        render();
        getRow(id).querySelector('[data-do=confirm-now]').focus();
    }

    function closeQuestion(id, action) {
        question = null;
        render();
        const row = getRow(id);
        (row.querySelector(`[data-action=${action}]`) || row.querySelector('.name')).focus();
    }

    // Returns whether the element belongs to an open question.
    function takeBack(element) {
        const isOpen = question !== null && element.closest('.actions .confirm') !== null;
        if (isOpen) {
            closeQuestion(question.id, question.action);
        }
        return isOpen;
    }

    function confirm(_button, row) {
        const {id, action} = question;
        closeQuestion(row.dataset.id, action);
        act(action, id);
    }

    return {
        update,
        takeBack,
        getRequest: id => requests.get(id),
        forgetUnknown: isKnown => removeUnknown(followed, isKnown),
        actions: {
            act: (button, row) => act(button.dataset.action, row.dataset.id),
            confirm: (button, row) => openQuestion(button.dataset.action, row.dataset.id),
            'confirm-now': confirm,
            'confirm-cancel': (button, row) => takeBack(button, row),
        },
    };
}

function saySavings({prepaid, costPerHour}) {
    return prepaid ? ' Prepaid by the month: stopping saves nothing.'
        : costPerHour === null ? ' What it saves is not known.' : ` It saves ${sayCost(costPerHour)}.`;
}
