// The drawer of an instance: what it shows follows the page's address, so that it can be shared and Back closes it.

import {createDrawer} from '../drawer.js';
import {find, make, set, setText} from '../elements.js';
import {getLabel} from '../statuses.js';
import {describe, describeCost, describePorts, fill, makeSection} from './facts.js';

const COPIED_MS = 2000;

// `parts` fill their own elements of the drawer, as they do in a row; `recordings` are what the service has recorded.
export function createDetails({address, inventory, protection, protecting, annotation, recordings, snoozing, utilization, parts, getRow, statusLine}) {
    // What a policy is about to do comes first.
    const element = makeDrawer(snoozing.section, [
        utilization.section,
        annotation.section,
        protecting.section,
        recordings.section,
    ]);
    const drawer = createDrawer(element, {onClose});
    const notice = element.querySelector('.drawer-notice');
    let id = ''; // of the instance that is shown
    let known = null; // the instance as it was last

    document.body.append(element);

    // Opens, updates or closes the drawer as the address says.
    function render() {
        const wanted = address.query.instance;
        if (wanted !== id) {
            wanted ? begin(wanted) : drawer.close();
        }
        if (id) {
            update();
        }
    }

    function begin(wanted) {
        id = wanted;
        known = null;
        element.dataset.id = id;
        element.scrollTop = 0;
        annotation.begin();
        snoozing.begin();
        recordings.begin(id);
        utilization.begin(id);
        drawer.open(() => getRow(wanted)?.querySelector('.name'));
    }

    function update() {
        const present = inventory.get(id);
        known = present || known;
        // An empty inventory says nothing about an instance.
        const isGone = !present && inventory.hasCopy;
        const shown = known && {...known, ...isGone ? {actions: []} : {}};
        setText(element.querySelector('h2 bdi'), known?.name || id);
        setText(notice, sayNotice(isGone));
        set(element.querySelector('.drawer-tools'), 'hidden', !known);
        for (const section of element.querySelectorAll('[data-needs-instance]')) {
            set(section, 'hidden', !known);
        }
        if (known) {
            updateKnown(shown, isGone);
        }
        recordings.update(known, Boolean(present), JSON.stringify([present, protection.get(id)]));
    }

    function updateKnown(one, isGone) {
        const status = find(element, '.status');
        setText(status, isGone ? 'Removed' : getLabel(one.status));
        set(status, 'title', one.status);
        set(status.dataset, 'group', isGone ? 'gone' : one.group);
        set(find(element, '.more'), 'hidden', isGone);
        const whole = {...recordings.facts.fields, ...one};
        fill(element.querySelector('.facts'), describe(whole));
        fill(element.querySelector('.ports'), describePorts(whole));
        fill(element.querySelector('.costs'), describeCost(whole, recordings.costs));
        for (const updatePart of parts) {
            updatePart(element, one);
        }
        utilization.update(one);
        snoozing.updateSection(one);
        protecting.updateSection(one, isGone);
        annotation.updateSection(one, isGone);
    }

    function sayNotice(isGone) {
        if (!isGone) {
            return known ? recordings.facts.fields ? '' : recordings.facts.error : 'The cache is empty, so the instance is not known yet.';
        }
        return known
            ? 'This instance no longer exists at Novita. Below is what was known.'
            : 'No instance has this ID. It was removed, or the address is wrong.';
    }

    function onClose() {
        id = '';
        known = null;
        if (address.query.instance) {
            address.change({instance: ''}, {isStep: false});
        }
    }

    // Another instance takes the place of the one that is shown: Back closes the drawer in one step.
    function open(_button, row) {
        if (row.dataset.id === id) {
            drawer.close();
        } else {
            address.change({instance: row.dataset.id}, {isStep: !id});
        }
    }

    async function copy(button) {
        const {text} = button.dataset;
        try {
            await navigator.clipboard.writeText(text);
            statusLine.tell(`Copied: ${text}`);
            if (button.matches('.copy')) {
                // A drawer that covers the page covers the line of results, too.
                button.textContent = 'Copied';
                setTimeout(() => setText(button, 'Copy'), COPIED_MS);
            }
        } catch {
            const words = [...element.querySelectorAll('dd bdi')].find(one => one.textContent === text);
            if (words?.checkVisibility()) {
                getSelection().selectAllChildren(words);
            }
            statusLine.tell(`The browser doesn't allow copying here. Copy this text yourself: ${text}`, true);
        }
    }

    return {
        render,
        // The drawer if the focus is in it: the place of what happens to this instance.
        getFocused: wanted => wanted === id && element.contains(document.activeElement) ? element : null,
        actions: {open, copy},
    };
}

function makeDrawer(first, sections) {
    return make('aside', {id: 'instance', class: 'drawer', hidden: '', 'aria-labelledby': 'instance-name'},
        make('div', {class: 'drawer-head'},
            make('h2', {id: 'instance-name', class: 'name', tabindex: -1}, make('bdi', {})),
            make('button', {type: 'button', class: 'is-plain', 'aria-label': 'Close', 'data-close': ''}, '×'),
            make('div', {class: 'drawer-tools'},
                make('span', {class: 'status'}),
                make('div', {class: 'actions'}, make('div', {class: 'buttons'})),
                make('button', {
                    type: 'button',
                    class: 'more is-plain',
                    'aria-haspopup': 'menu',
                    'aria-expanded': 'false',
                    'data-do': 'menu',
                }, '···'))),
        make('div', {class: 'drawer-content'},
            make('p', {class: 'drawer-notice', role: 'status'}),
            first,
            makeSection('Overview', make('dl', {class: 'facts'})),
            makeSection('Connect', make('dl', {class: 'ports'})),
            makeSection('Cost', make('dl', {class: 'costs'})),
            ...sections));
}
