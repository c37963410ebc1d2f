"""`python3 -m stages STAGE`: how dvc.yaml runs a stage."""

from stages import launch

if __name__ == "__main__":
    launch.run_interpreter_of_dvc()
    launch.refuse_other_code()
    launch.refuse_missing_packages()
    launch.settle_surroundings()
    from stages.app import app, run

    run(app)
