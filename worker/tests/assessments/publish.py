"""Publishes the events that come as JSON lines on standard input, each confirmed by the broker, with pika.

The broker may die meanwhile, or have no queue yet: an event that is not confirmed is published again.
"""

import json
import sys
import time

import pika

url, exchange = sys.argv[1], sys.argv[2]
connection = None
channel = None


def connect():
    global connection, channel
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.confirm_delivery()


def publish(event):
    global channel
    while True:
        try:
            if channel is None or not channel.is_open:
                connect()
            properties = pika.BasicProperties(
                content_type="application/json",
                delivery_mode=2,
                message_id=event.get("message_id"),
            )
            channel.basic_publish(exchange, event["key"], event["body"].encode(), properties, mandatory=True)
            return
        except pika.exceptions.UnroutableError:
            # No queue is bound yet.
            time.sleep(0.1)
        except (pika.exceptions.AMQPError, OSError):
            channel = None
            time.sleep(0.1)


for line in sys.stdin:
    publish(json.loads(line))
    # Whoever waits for it knows how far this is.
    print("published", flush=True)
if connection is not None and connection.is_open:
    connection.close()
