// Operations on many instances: the dialog before, the panel while and after.

import {createFollower} from './follower.js';
import {createPanel} from './panel.js';
import {createPlan} from './plan.js';
import {getTone} from './states.js';
import {sayDoing, sayPageTitle} from './words.js';

// `onChange` is called when the page's title may have changed, `refresh` reads the service again.
export function createOperations({root, onChange, refresh}) {
    const follower = createFollower({
        onChange: () => {
            panel.render();
            onChange();
        },
        onLaunch: () => panel.focus(),
        refresh,
    });
    const panel = createPanel({root, follower});
    const plan = createPlan({root, onConfirm: follower.start});

    function getPageTitle() {
        const {launch, shown} = follower;
        if (shown && !launch) {
            return sayPageTitle(shown);
        }
        return launch && !launch.isError ? `${sayDoing(launch.kind)}…` : '';
    }

    function hasTrouble() {
        const {launch, shown} = follower;
        return Boolean(launch ? launch.isError : shown && getTone(shown) === 'trouble');
    }

    return {
        preview: plan.open,
        take: follower.takeList,
        tick: panel.tick,
        takeBack: panel.takeBack,
        getPageTitle,
        hasTrouble,
        actions: {...plan.actions, ...panel.actions},
    };
}
