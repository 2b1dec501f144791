//! Killed at any instant, a run leaves a store that is sound and a next run that succeeds.

use std::time::Duration;

use crate::project::Project;

const STAGES: usize = 30;
const ROUNDS: u64 = 40;

#[test]
fn a_store_is_sound_after_kills_at_random_moments() {
    let stages: Vec<_> = (0..STAGES)
        .map(|n| format!("  c{n}: {{ run: [sh, -c, 'seq {n} > \"$0/a\"; seq {n} 99 > \"$0/b\"', '{{out}}'] }}\n"))
        .collect();
    let project = Project::with(&format!("name: x\ncommands:\n{}", stages.concat()));
    // A linear congruential generator: the same moments each time, as far as a machine repeats itself.
    let mut seed = 20_240_601_u64;
    let mut done = 0;
    for round in 0..ROUNDS {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let run = project.start(&["run", "x.yaml", "--jobs", "4"]);
        std::thread::sleep(Duration::from_millis(1 + (seed >> 33) % 200));
        run.kill();
        if !project.has(".mergelab/keys") {
            continue;
        }
        let said = project.mergelab(&["verify", "--json"]).exits(0).json();
        let artifacts = usize::try_from(said["artifacts"].as_u64().unwrap()).unwrap();
        assert!(artifacts >= done, "round {round}: {artifacts} artifacts, and there were {done}");
        done = artifacts;
        if done == STAGES {
            // Start again, so that every round has something to be killed in.
            std::fs::remove_dir_all(project.path(".mergelab/keys")).unwrap();
            std::fs::create_dir(project.path(".mergelab/keys")).unwrap();
            done = 0;
        }
    }
    let summary = project.run(&[]);
    assert_eq!(summary.in_state("ran").len() + summary.in_state("hit").len(), STAGES, "{}", summary.said.stderr);
    let said = project.mergelab(&["verify", "--json"]).exits(0).json();
    assert_eq!((&said["artifacts"], &said["files"]), (&STAGES.into(), &(2 * STAGES).into()));
    assert_eq!(project.in_store("tmp"), [""; 0]);
    assert_eq!(project.in_store("quarantine"), [""; 0]);
    project.run(&[]).ran(&[]);
}
