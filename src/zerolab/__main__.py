from zerolab.cli import main

main()
