// The dialog before an operation: the plan, from a dry run, and the number that confirms a stop of all.

import {clone, listItems, setDisabled, setText} from '../elements.js';
import {sortByName} from '../order.js';
import {send} from '../session.js';
import {getCountedLabel} from '../statuses.js';
import {capitalize, count, PAST, sayCost, sayNumber} from '../words.js';
import {findRepeatedNames, getName} from './states.js';

// Returns the path and the body of the request that carries the operation out.
export function getRequest({kind, ids, retryOf, restoreOf}) {
    if (retryOf) {
        return ['/api/operations', {fromOperation: retryOf}];
    }
    if (restoreOf) {
        return ['/api/operations', {kind, fromOperation: restoreOf}];
    }
    return ids ? ['/api/operations', {kind, ids}] : ['/api/instances/stop-all', {}];
}

// `onConfirm` gets {kind, ids, restoreOf, reason}.
export function createPlan({root, onConfirm}) {
    const dialog = document.getElementById('plan');
    const form = document.getElementById('plan-form');
    const {number: numberField, reason: reasonField} = form.elements;
    const goButton = document.getElementById('plan-go');
    const retryButton = document.getElementById('plan-retry');
    const closeButton = document.getElementById('plan-close');
    const title = document.getElementById('plan-title');
    const state = document.getElementById('plan-state');
    const changed = document.getElementById('plan-changed');
    // {kind, ids, restoreOf, expected, next, answer, requested, left, failure}: ids null for the whole account, answer null
    // until the dry run is answered, next what the list says now where that differs from expected.
    let plan = null;

    // `expected` is how many the page's own list has for it; null when the page has no list. `restoreOf` is the stop
    // whose instances start again.
    function open(kind, ids, expected, restoreOf) {
        plan = {kind, ids, restoreOf, expected, answer: null};
        form.reset();
        setText(title, restoreOf ? 'Start the stopped instances again'
            : ids ? `${capitalize(kind)} the selected instances` : 'Stop all instances');
        dialog.showModal();
        title.focus();
        read();
    }

    async function read() {
        const mine = plan;
        const [path, body] = getRequest(mine);
        mine.answer = null;
        mine.failure = '';
        mine.expected = mine.next ?? mine.expected;
        setText(changed, '');
        render();
        try {
            mine.answer = await send('POST', path, {...body, dryRun: true});
            const {results, skipped} = mine.answer;
            mine.requested = results.filter(one => one.state === 'pending');
            mine.left = [
                ...skipped,
                ...results.filter(one => one.state !== 'pending')
                    .map(one => ({...one, reason: one.message})),
            ];
        } catch (error) {
            mine.failure = error.message;
        }
        if (plan === mine && dialog.open) {
            render();
            focusNext();
        }
    }

    // Leaves a focus that was moved meanwhile.
    function focusNext() {
        if (!dialog.contains(document.activeElement) || [title, retryButton].includes(document.activeElement)) {
            (plan.failure ? retryButton : !plan.requested.length ? closeButton : plan.ids ? goButton : numberField).focus();
        }
    }

    function render() {
        const {kind, ids, answer, failure} = plan;
        const found = answer ? plan.requested.length : 0;
        setText(state, failure ? `The account can't be read: ${failure}` : answer ? describe() : 'Reading the account…');
        state.classList.toggle('is-error', Boolean(failure));
        setText(document.getElementById('plan-money'), found ? sayMoney(kind, answer) : '');
        setText(retryButton, failure ? 'Try again' : 'Read again');
        retryButton.hidden = !failure && !changed.textContent;
        document.getElementById('plan-found').hidden = !answer;
        document.getElementById('plan-sure').hidden = !found;
        // It keeps its place: no button stands there before it appears.
        goButton.classList.toggle('is-absent', !found);
        document.getElementById('plan-number-field').hidden = Boolean(ids);
        setText(document.getElementById('plan-number-label'), `Enter ${sayNumber(found)} to stop ${found === 1 ? 'it' : 'them'}`);
        setText(goButton, `${capitalize(kind)} ${count(found)}`);
        goButton.classList.toggle('is-danger', kind !== 'start');
        setText(closeButton, found ? 'Cancel' : 'Close');
        if (answer) {
            const repeated = findRepeatedNames([...plan.requested, ...plan.left]);
            fillNames('plan-targets', plan.requested, repeated);
            fillNames('plan-skipped', plan.left, repeated);
            setText(document.getElementById('plan-skipped-title'), `${sayNumber(plan.left.length)} skipped`);
            listItems(document.getElementById('plan-warnings'), answer.warnings);
            renderObstacle();
        }
    }

    function describe() {
        const {kind, ids, expected, requested} = plan;
        const isOld = expected !== null && expected !== requested.length;
        const older = isOld ? ` The list on this page is older and shows ${sayNumber(expected)}.` : '';
        if (!requested.length) {
            return (ids ? `None of the selected instances can be ${PAST[kind]} now.` : 'Nothing is running.') + older;
        }
        const groups = kind === 'stop' ? describeGroups() : '';
        // The colon introduces the list of names when no other text follows.
        const end = groups ? `: ${groups}.` : older ? '.' : ':';
        // The operation verifies these, too, so that its numbers include them.
        const moving = plan.left.filter(one => one.state === 'requested').length;
        const more = moving && kind === 'stop' ? ` ${sayNumber(moving)} more ${moving === 1 ? 'is' : 'are'} stopping already.` : '';
        return `${count(requested.length)} will be ${PAST[kind]}${more && end === ':' ? '.' : end}${more}${older}`;
    }

    // Returns '' when all have the status that can be stopped at once.
    function describeGroups() {
        const numbers = new Map();
        for (const {status} of plan.requested) {
            const word = getCountedLabel(status).toLowerCase();
            numbers.set(word, (numbers.get(word) || 0) + 1);
        }
        return numbers.size === 1 && numbers.has('running') ? ''
            : [...numbers].map(([word, number]) => `${sayNumber(number)} ${word}`).join(', ');
    }

    // Tells how many a stop of all would stop now, by the page's list; null when the page has none. A list that hasn't
    // changed since the plan was made may be older than the plan.
    function follow(number) {
        if (!plan || plan.ids || number === null || number === plan.expected) {
            return;
        }
        if (!plan.answer || number === plan.requested.length) {
            plan.expected = number;
            setText(changed, '');
        } else {
            setText(changed, `Meanwhile this has changed: it would be ${count(number)} now. Stop all stops what runs at that moment.`);
            plan.next = number;
        }
        render();
    }

    function findObstacle() {
        const wanted = sayNumber(plan.requested.length);
        const typed = numberField.value.trim();
        return plan.ids || [wanted, String(plan.requested.length)].includes(typed) ? ''
            : typed ? `That doesn't match. Enter ${wanted}.` : `Enter ${wanted} to enable the button.`;
    }

    function renderObstacle() {
        if (plan?.answer) {
            const obstacle = findObstacle();
            setText(document.getElementById('plan-obstacle'), obstacle);
            setDisabled(goButton, Boolean(obstacle));
            numberField.setAttribute('aria-invalid', String(Boolean(obstacle && numberField.value)));
        }
    }

    function confirm() {
        if (!plan?.answer || !plan.requested.length || !dialog.open) {
            return;
        }
        renderObstacle();
        if (findObstacle()) {
            numberField.focus();
            return;
        }
        const {kind, ids, restoreOf} = plan;
        const reason = reasonField.value.trim();
        dialog.close();
        onConfirm({kind, ids, restoreOf, reason});
    }

    dialog.addEventListener('input', renderObstacle);
    dialog.addEventListener('close', () => {
        // The event comes later. The dialog may have another plan by then.
        if (dialog.open) {
            return;
        }
        plan = null;
        // The button that opened it may have gone meanwhile.
        if (document.activeElement === document.body) {
            root.querySelector('[data-do=stop-all]').focus();
        }
    });

    return {
        open,
        follow,
        actions: {'plan-retry': () => read(), 'plan-close': () => dialog.close(), 'plan-go': confirm},
    };
}

// A restart changes no cost. A rate is null when no price is known.
function sayMoney(kind, {savesPerHour, costsPerHour, unknownPrices, prepaid}) {
    const rate = kind === 'start' ? costsPerHour : savesPerHour;
    if (kind === 'restart' || (rate === null && !unknownPrices)) {
        return '';
    }
    const verb = kind === 'start' ? 'Costs' : 'Saves';
    if (rate === null) {
        return `${verb} an unknown amount: no price is known.`;
    }
    const left = [unknownPrices && `${sayNumber(unknownPrices)} unknown`, prepaid && `${sayNumber(prepaid)} prepaid`].filter(Boolean).join(', ');
    return `${verb} ${sayCost(rate)}${left ? `, without ${left}` : ''}.`;
}

function fillNames(id, targets, repeated) {
    const list = document.getElementById(id);
    list.parentElement.hidden = !targets.length;
    list.replaceChildren(...sortByName(targets, getName, one => one.instanceId).map(one => {
        const item = clone('named-template');
        item.querySelector('.target-name').textContent = getName(one);
        item.querySelector('.target-id').textContent = repeated.has(getName(one)) ? one.instanceId : '';
        item.querySelector('.why').textContent = one.reason || '';
        return item;
    }));
}
