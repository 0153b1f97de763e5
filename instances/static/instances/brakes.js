// The brakes of the whole account: freeze starts, and switch off the policies. Both stand in the menu of actions, and a
// banner says while one is on.

import {formatTime, getMorning, getNow} from './clock.js';
import {make, set, setText} from './elements.js';
import {send} from './session.js';
import {sayLocal, sayMoment, sayNumber} from './words.js';

const HOUR_MS = 3_600_000;
// When a freeze ends: the choice, and its words.
const ENDS = [['1', 'for 1 hour'], ['4', 'for 4 hours'], ['morning', 'until tomorrow 09:00'], ['', 'until somebody removes the freeze']];

// `ask` is that of confirm.js.
export function createBrakes({ask, overview, statusLine, refreshAnew}) {
    const freezeButton = make('button', {type: 'button'});
    const policyButton = make('button', {type: 'button'});
    const items = make('div', {class: 'pop-items', role: 'group', 'aria-label': 'Starts and policies'}, freezeButton, policyButton);
    const popButton = make('button', {type: 'button', 'data-do': 'pop', 'aria-expanded': 'false'}, 'More');
    document.querySelector('#account-menu > .pop-items').append(make('div', {class: 'pop', id: 'brakes', 'data-needs': 'admin'}, popButton, items));

    const listShown = () => [
        [overview.value?.startFreeze?.frozen, freezeButton, 'unfreeze-starts', 'Allow starts…', 'freeze-starts', 'Freeze starts…'],
        [overview.value?.policies?.on === false, policyButton, 'policies-on', 'Switch policies on…', 'policies-off', 'Switch policies off…'],
    ];

    function render() {
        for (const [isOn, button, release, releaseLabel, brake, label] of listShown()) {
            set(button.dataset, 'do', isOn ? release : brake);
            setText(button, isOn ? releaseLabel : label);
        }
        // While POLICIES is off in the settings, no button switches policies on.
        const {policies} = overview.value ?? {};
        set(policyButton, 'hidden', !policies?.allowed);
    }

    // Returns the banners. The server renders them too, with its own way to write times (dashboard.py).
    function listNotices() {
        const {startFreeze, policies, findings, openFindings} = overview.value ?? {};
        const hidden = openFindings > findings?.length
            && `Policies have ${sayNumber(openFindings)} open findings. This page shows ${sayNumber(findings.length)} of them.`;
        return [
            startFreeze?.message && {text: sayLocal(startFreeze.message), ...makeButton('Allow starts…', 'unfreeze-starts')},
            policies?.message && {text: policies.message, ...policies.allowed && makeButton('Switch on…', 'policies-on')},
            hidden && {text: hidden},
        ].filter(Boolean);
    }

    async function freeze(button) {
        const answer = await ask({
            title: 'Freeze starts',
            sentences: ['Nobody can start or restart an instance here.', 'Stops always pass. What is started elsewhere is reported.'],
            choice: {label: 'How long', options: ENDS},
            field: {label: 'Reason, which everybody sees', maxLength: 500},
            action: 'Freeze starts',
        });
        if (answer) {
            await run(button, 'Freezing starts…', async () => {
                const frozen = await send('PUT', '/api/start-freeze', {until: findEnd(answer.choice), reason: answer.text});
                return frozen.until ? `Starts are frozen until ${sayMoment(frozen.until)}.` : 'Starts are frozen.';
            });
        }
    }

    async function unfreeze(button) {
        const isSure = await ask({
            title: 'Allow starts',
            sentences: ['Instances can be started and restarted again.', overview.value?.startFreeze?.message].filter(Boolean).map(sayLocal),
            action: 'Allow starts',
        });
        if (isSure) {
            await run(button, 'Removing the start freeze…', async () => {
                await send('DELETE', '/api/start-freeze');
                return 'Instances can be started again.';
            });
        }
    }

    async function switchPolicies(button, on) {
        const isSure = await ask(on ? {
            title: 'Let policies act again',
            sentences: ['Policies in the mode stop may stop instances again.', 'What is due by now is warned of anew first.'],
            action: 'Switch on',
        } : {
            title: 'Switch all policies off',
            sentences: ['No policy stops anything until somebody switches them on again.', 'Stops of policies that are not requested yet are cancelled. Findings are recorded all the same.'],
            action: 'Switch off',
        });
        if (isSure) {
            await run(button, 'Switching policies…', async () => {
                const {cancelledStops} = await send('PUT', '/api/policies/switch', {on});
                const cancelled = cancelledStops ? ` ${sayNumber(cancelledStops)} stop${cancelledStops === 1 ? '' : 's'} cancelled.` : '';
                return (on ? 'Policies act again.' : 'Policies stop nothing.') + cancelled;
            });
        }
    }

    function run(button, text, work) {
        return statusLine.run(button, text, () => work().finally(refreshAnew));
    }

    render();
    return {
        render,
        listNotices,
        actions: {
            'freeze-starts': freeze,
            'unfreeze-starts': unfreeze,
            'policies-off': button => switchPolicies(button, false),
            'policies-on': button => switchPolicies(button, true),
        },
    };
}

function makeButton(label, action) {
    return {label, attributes: {'data-do': action, 'data-needs': 'admin'}};
}

function findEnd(choice) {
    if (choice === 'morning') {
        return getMorning();
    }
    return choice ? formatTime(new Date((getNow() ?? Date.now()) + Number(choice) * HOUR_MS)) : null;
}
