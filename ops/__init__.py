"""What an operator does by hand: python3 -m ops. On the packages of requirements.txt, never deployed.

arguments  the command line and its help
consent    a person signs in, in a browser
tokens     the stored refresh token: status, rotate, import
show       the usage summary
snapshot   a snapshot taken now
history    the record verified, the history rebuilt and shown
redirect   the answer of a sign-in: at a loopback port, or pasted
checks     what a consent is good for, tried before it is stored
access     the settings, who runs this, and what is read from standard input
report     what a command found out, for a person or as JSON
"""
