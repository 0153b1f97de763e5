// Search, status tabs and filters: their fields, and which instances match.

import {needsAttention} from '../cards/attention.js';
import {make, set, setText} from '../elements.js';
import {compareKeys, compareTexts, fold, getNaturalKey} from '../order.js';
import {getGroupLabel, isMoving} from '../statuses.js';
import {count, sayNumber} from '../words.js';

// The filters whose choices are the values of the instances: each with the field.
const CHOICES = {gpu: 'productName', region: 'region', owner: 'owner', project: 'project'};
const TITLES = {ordering: 'Order', gpu: 'GPU', region: 'Region', owner: 'Owner', project: 'Project'};
// They stand there only where instances have values.
const OPTIONAL = ['owner', 'project'];
const FIELDS = ['search', ...Object.keys(CHOICES)];
// As many tabs always stand there, or when they have instances; the other ones when they are chosen.
const ALWAYS = 5;
const WITH_INSTANCES = 7;
// After the first five.
const MORE = [
    ['group', 'other'],
    ['group', 'gone'],
    ['group', 'starting'],
    ['group', 'stopping'],
    ['attention', 'longRunning', 'Long-running'],
    ['attention', 'spotReclaim', 'Spot reclaims'],
    ['attention', 'idle', 'Idle'],
];

const EMPTY = Object.fromEntries([...FIELDS, 'group', 'attention'].map(name => [name, '']));

export function createFilters({form, address, inventory}) {
    addSelects(form);
    const searchField = form.elements.search;
    const tabs = listTabs(form);
    const order = form.elements.ordering;
    const counts = new Map(); // tab → the number of instances that match the other filters
    let offered = null; // the instances whose values are the choices

    // On a phone the table has no headings to press.
    if (!order.options.length) {
        const headings = [...document.querySelectorAll('#instances [data-column]')];
        order.append(new Option('Attention first', ''), ...headings.map(one => new Option(one.textContent, (one.dataset.first || '') + one.dataset.column)));
    }

    // Returns the matches in the order of `sorted`.
    function select(sorted) {
        const {group, attention} = address.query;
        const found = selectByFields(sorted);
        for (const {name, value} of tabs) {
            if (name !== 'attention' || value === 'error' || value === attention) {
                counts.set(`${name} ${value}`, name ? found.filter(one => isIn(one, name, value)).length : found.length);
            }
        }
        return found.filter(one => (!group || isIn(one, 'group', group)) && (!attention || isIn(one, 'attention', attention)));
    }

    function selectByFields(sorted) {
        const [search, gpu, region, owner, project] = FIELDS.map(name => fold(address.query[name]));
        const isEqual = (value, wanted) => fold(value || '') === wanted;
        const tests = [
            search && (one => inventory.matches(one, search)),
            gpu && (one => fold(one.productName).includes(gpu) || fold(one.productId).includes(gpu)),
            region && (one => isEqual(one.region, region) || isEqual(one.clusterId, region)),
            owner && (one => isEqual(one.owner, owner)),
            project && (one => isEqual(one.project, project)),
        ].filter(Boolean);
        return tests.length ? sorted.filter(one => tests.every(test => test(one))) : sorted;
    }

    function isIn(one, name, value) {
        return name === 'attention' ? needsAttention(one, value) : value === 'moving' ? isMoving(one) : one.group === value;
    }

    function render() {
        if (inventory.instances !== offered) {
            offered = inventory.instances;
            Object.keys(CHOICES).forEach(renderChoices);
        }
        for (const name of [...FIELDS, 'ordering']) {
            const field = form.elements[name];
            if (field.value !== address.query[name] && document.activeElement !== field) {
                field.value = address.query[name];
            }
        }
        const chosen = Object.keys(CHOICES).filter(name => address.query[name]).length;
        setText(document.getElementById('filter-count'), chosen ? ` · ${chosen}` : '');
        form.querySelector('[data-do=clear-filters]').hidden = !Object.keys(EMPTY).some(name => address.query[name]);
        tabs.forEach(renderTab);
    }

    function renderTab({tab, name, value}, at) {
        const {group, attention} = address.query;
        const isCurrent = group === (name === 'group' ? value : '') && attention === (name === 'attention' ? value : '');
        const link = address.makeLink({group: '', attention: '', ...name && {[name]: value}, page: 1});
        if (tab.getAttribute('href') !== link) {
            tab.href = link;
        }
        set(tab, 'ariaCurrent', isCurrent ? 'true' : null);
        if (inventory.instances !== null) {
            const number = counts.get(`${name} ${value}`);
            set(tab, 'hidden', at >= (number ? WITH_INSTANCES : ALWAYS) && !isCurrent);
            setText(tab.querySelector('span'), inventory.hasCopy && number !== undefined ? sayNumber(number) : '');
        }
    }

    function renderChoices(name) {
        const field = form.elements[name];
        const known = new Set(inventory.instances.map(one => one[CHOICES[name]]).filter(Boolean));
        if (address.query[name]) {
            known.add(address.query[name]);
        }
        const compare = (a, b) => compareKeys(getNaturalKey(a), getNaturalKey(b)) || compareTexts(a, b);
        const values = ['', ...[...known].sort(compare)];
        if (values.join('\n') !== [...field.options].map(option => option.value).join('\n')) {
            field.replaceChildren(...values.map(value => new Option(value || 'All', value)));
            field.value = address.query[name];
        }
        field.parentElement.hidden = OPTIONAL.includes(name) && !known.size;
        if (name === 'owner') {
            document.getElementById('instances').classList.toggle('lacks-owner', !known.size);
        }
    }

    function renderMatches(number) {
        const total = inventory.instances.length;
        const words = number === total ? count(total) : `${sayNumber(number)} of ${sayNumber(total)} match`;
        setText(document.getElementById('matches'), inventory.hasCopy ? words : '');
    }

    // After a step back the fields follow the address, even one that has the focus.
    function fill() {
        for (const name of [...FIELDS, 'ordering']) {
            const field = form.elements[name];
            if (field.tagName === 'SELECT' && ![...field.options].some(option => option.value === address.query[name])) {
                field.add(new Option(address.query[name]));
            }
            field.value = address.query[name];
        }
    }

    function clear() {
        searchField.value = '';
        address.change({...EMPTY, page: 1}, {isStep: true});
        searchField.focus();
    }

    form.addEventListener('input', ({target}) => {
        address.change({[target.name]: target.value, page: 1}, {isStep: false});
    });

    return {
        select,
        render,
        renderMatches,
        fill,
        focus() {
            searchField.focus();
            searchField.select();
        },
        actions: {'clear-filters': clear},
    };
}

// Adds the fields where the server leaves them out.
function addSelects(form) {
    if (!form.elements.gpu) {
        const labels = Object.entries(TITLES).map(([name, title]) => (
            make('label', OPTIONAL.includes(name) ? {hidden: ''} : {}, `${title} `, make('select', {name}))
        ));
        form.querySelector('#more-filters .pop-items').append(...labels);
    }
}

// Adds the tabs that the server leaves out where they would be hidden. Returns all, each with its parameter and value: of
// a group, of a reason for attention, or of neither.
export function listTabs(form) {
    for (const [name, value, label] of MORE) {
        const known = form.querySelector(`.tabs [data-${name}=${value}]`);
        form.querySelector('.tabs').append(known || make('a', {[`data-${name}`]: value, hidden: ''}, label || getGroupLabel(value), ' ', make('span', {})));
    }
    return [...form.querySelectorAll('.tabs a')].map(tab => {
        const {group, attention} = tab.dataset;
        return {tab, name: group ? 'group' : attention ? 'attention' : '', value: group || attention || ''};
    });
}
